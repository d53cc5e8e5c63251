"""The recipes that come with the package."""

from pathlib import Path

RECIPES = Path(__file__).parent / "recipes"


def find_recipe(name: str) -> Path:
    """Finds the file of a recipe.

    Args:
        name (`str`): The path of a YAML file, or the name of a recipe of the package.

    Returns:
        `Path`: The file.

    Raises:
        FileNotFoundError: if there is no such recipe. The message names those of the package.
    """
    for path in (Path(name), RECIPES / f"{name}.yaml"):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    raise FileNotFoundError(f"{name}: no such recipe; a YAML file, or one of {shipped}")
