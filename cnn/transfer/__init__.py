"""Fine-tuning: where weights come from, strict merge, plan of phases, features."""
