"""Hydra's search path, with the folders of configs that a project or the environment names."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class ProjectConfigs(SearchPathPlugin):
    """Adds the folders to the search path of modulab alone: other programs with Hydra do not read modulab.toml."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folders, the one that the command line names first."""
        from modulab.config.composing import config_folder
        from modulab.config.project_file import PROJECT_FILE, folders_in_order

        paths = [str(element.path).removeprefix("file://") for element in search_path.get_path()]
        if str(config_folder()) in paths:
            for folder in folders_in_order():
                search_path.append(provider=PROJECT_FILE, path=f"file://{folder}")
