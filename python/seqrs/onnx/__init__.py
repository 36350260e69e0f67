"""tmp"""
from . import backend
