"""Files for other tools: FORMATS, format_analysis and write_analysis are in `analysis_files`."""

from .analysis_files import FORMATS, format_analysis, write_analysis

__all__ = ["FORMATS", "format_analysis", "write_analysis"]
