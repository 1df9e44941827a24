"""A model as one HTML file that segments images in any browser; the page's own code lies beside this file."""

from segshrink.export.web.page import export_web, is_page_of

__all__ = ["export_web", "is_page_of"]
