import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the tests and the processes they start share counting_bench.py
