"""What pictures show, as arrays: pure functions of images and models."""
