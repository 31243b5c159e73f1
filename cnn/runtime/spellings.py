"""What other programs call our flags: the table of spellings that people type.

Of timm (`train.py`), torchvision (`references/classification`), Keras (arguments of
`fit`, optimizers and layers), Hugging Face (`TrainingArguments`), PyTorch, Ultralytics.
"""

import difflib
from collections.abc import Iterable

from cnn.place import COMMAND

SPELLINGS = {
    "accumulate_steps": "grad_accum grad_accum_steps gradient_accumulation_steps "
    "accumulate_grad_batches accum_steps accum_iter",
    "adam_beta1": "beta1 beta_1",
    "adam_beta2": "beta2 beta_2",
    "batch_size": "bs batch b train_batch_size per_device_train_batch_size minibatch "
    "batchsize",
    "bce_threshold": "bce_target_thresh",
    "checkpoint": "ckpt",
    "checkpoint_every_epochs": "save_every save_freq save_steps save_strategy "
    "checkpoint_hist",
    "clip_norm": "clip_grad grad_clip max_grad_norm clip_grad_norm clipnorm "
    "gradient_clip_val gradient_clip",
    "clip_value": "clipvalue",
    "compilation_cache": "jax_cache",
    "config": "preset recipe cfg",
    "cpu_devices": "host_devices",
    "crop_padding": "random_crop",
    "cutmix_alpha": "cutmix",
    "data_dir": "dataset_dir tfds_dir",
    "dataset": "data data_path data_root ds dataset_name train_dir imagefolder root",
    "dropblock_rate": "drop_block drop_block_rate",
    "distillation": "distillation_type kd_type",
    "distillation_share": "distillation_alpha kd_alpha",
    "distillation_temperature": "distillation_tau kd_temperature tau",
    "dropout_rate": "drop dropout drop_rate",
    "early_stop_epochs": "patience early_stopping early_stop early_stopping_patience",
    "ema_decay": "ema model_ema model_ema_decay",
    "epochs": "num_epochs n_epochs max_epochs num_train_epochs epoch steps max_steps e",
    "epsilon": "eps opt_eps adam_epsilon",
    "erasing_probability": "reprob random_erase random_erasing",
    "eval_every_epochs": "eval_every eval_freq val_interval validation_freq eval_steps",
    "flip_probability": "hflip flip horizontal_flip random_flip",
    "eval_image_size": "val_crop_size test_size",
    "eval_resize_size": "val_resize_size",
    "freeze": "frozen freeze_layers",
    "image_size": "img_size imgsz input_size resolution crop_size train_crop_size "
    "img size",
    "init_from": "pretrained weights finetune finetune_from initial_checkpoint "
    "model_name_or_path pretrained_weights",
    "keep_checkpoints": "save_total_limit max_to_keep",
    "label_smoothing": "smoothing label_smoothing_factor ls",
    "learning_rate": "lr base_lr init_lr initial_lr alpha",
    "log_every_steps": "logging_steps log_interval print_freq log_every",
    "loss": "criterion loss_fn",
    "loss_reduction": "bce_sum reduction",
    "mesh": "device devices gpus gpu ngpu num_gpus n_gpu",
    "milestones": "decay_milestones lr_milestones lr_steps",
    "mixup_alpha": "mixup",
    "model": "arch architecture net network backbone a model_name",
    "momentum": "mom sgd_momentum",
    "name": "run_name experiment exp_name experiment_name",
    "num_classes": "classes_count nb_classes n_classes num_labels",
    "optimizer": "opt optim optimiser",
    "policy": "aa auto_augment autoaugment randaugment trivialaugment augment",
    "policy_magnitude": "ra_magnitude",
    "precision": "amp dtype fp16 bf16 mixed_precision half",
    "predict_images": "images input",
    "random_resized_crop_min_area": "scale random_resized_crop rrc",
    "rotation_degrees": "rotation rotate degrees",
    "sampling": "sampler weighted_sampler class_balanced class_weight",
    "schedule": "sched scheduler lr_scheduler lr_schedule lr_scheduler_type",
    "seed": "random_seed manual_seed random_state",
    "split": "eval_split",
    "stochastic_depth_rate": "drop_path drop_path_rate",
    "sweep": "grid search_space param_grid",
    "teacher": "teacher_path teacher_weights",
    "track": "tensorboard wandb mlflow trackio tracker logger report_to log_wandb tb",
    "tta": "test_time_augmentation",
    "validation_fraction": "val val_split val_fraction validation_split_fraction",
    "vertical_flip_probability": "vflip",
    "warmup_epochs": "warmup lr_warmup_epochs warmup_steps warmup_ratio",
    "weight_decay": "wd decay l2",
    "workdir": "out output_dir out_dir save_dir logdir log_dir exp_dir resume "
    "checkpoint_dir ckpt_dir work_dir model_dir run_dir resume_from_checkpoint "
    "logging_dir o",
}
_FEWEST = 2  # characters of what may be the beginning of a flag


def suggest_flag(name: str, known: Iterable[str]) -> str:
    """Return which flag may have been meant, by its meaning or its spelling.

    Args:
        name: what was typed, without `--`.
        known: all flags.

    Returns:
        `; did you mean --X?`, or where all flags are listed.
    """
    plain = name.lower().replace("-", "_").strip("_")
    known = list(known)
    if plain in known:
        return f"; did you mean --{plain}?"
    for flag, others in SPELLINGS.items():
        if plain in others.split():
            return f"; did you mean --{flag}?"
    longer = [x for x in known if x.startswith(plain) and len(plain) > _FEWEST]
    near = longer or difflib.get_close_matches(plain, known, n=1, cutoff=0.6)
    found = f"; did you mean --{near[0]}?" if near else ""
    return f"{found} ({COMMAND} --help lists all)"
