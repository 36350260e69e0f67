"""tmp"""

from . import backend
from .export import export
