"""map2map's command line, ``m2m.py train`` and ``m2m.py test``, translated to a recipe.

`options` has its options, `translation` says what they mean, `testing` is its test mode.
"""

from collections.abc import Sequence

import yaml

from map2map.dialects.map2map.options import parser
from map2map.dialects.map2map.translation import drop_none, recipe

__all__ = ["drop_none", "main", "parser", "recipe"]


def main(argv: Sequence[str], prog: str = "m2m map2map") -> int:
    """Run a command line of map2map's."""
    options = parser(prog).parse_args(argv)
    made = drop_none(recipe(options))
    if options.print_recipe:
        print(yaml.safe_dump(made, sort_keys=False), end="")
        return 0
    if options.mode == "train":
        from map2map.commands.train import train_recipe

        return train_recipe(made, prog=f"{prog} train")
    from map2map.dialects.map2map.testing import test

    return test(made, options, f"{prog} test")
