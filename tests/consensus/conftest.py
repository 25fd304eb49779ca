import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the tests share quadratic_bowl.py, and importlib mode adds no folder
