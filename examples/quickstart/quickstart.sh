#!/bin/sh
# Learn 4x4 sudoku, then solve boards that were never seen, offline, in a minute or so on two CPU
# cores. Writes ./data (the puzzles) and ./logs (checkpoints, predictions).
set -e
xlm job_type=train job_name=quickstart experiment=quickstart_mlm
# The checkpoint it left gives the same figure.
xlm job_type=eval job_name=quickstart experiment=quickstart_mlm
