"""Width: what multiplies the channels of a model's hidden layers."""

from cnn.errors import UserError
from cnn.models.options import ModelOptions


def widen(options: ModelOptions, *channels: int) -> tuple[int, ...]:
    """Multiply numbers of channels by `--width_multiplier`.

    Raises:
        UserError: one of them would be no whole number.
    """
    factor = options.width_multiplier
    for number in channels:
        if not (number * factor).is_integer():
            raise UserError(
                f"--width_multiplier={factor:g} makes {number * factor:g} of {number} "
                f"channels of {options.model}; give one that leaves a whole number, "
                "such as 2 or 0.5"
            )
    return tuple(int(number * factor) for number in channels)
