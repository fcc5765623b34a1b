"""Every system beside hard sharing, on two data sets, with the same budget, the same rows and the same seeds.

Run: python -m benchmarks.systems_table --data_dir FOLDER [--systems mmoe cgc] [--datasets glue_small fdu_mtl]
     [--seeds 3] [--output out/systems_table] [--minutes 90] [--workers 2] [--page docs/systems_table.md]

The systems are those of `hf_mtl.modeling.systems.SYSTEMS`. A run is one system on one data set with one seed, which
draws the training rows, their order and the start of what is new. All systems take as many steps over the same rows in
the same batches with the same settings; the model of the last step is scored, so nothing is chosen on the rows that
are scored.

glue_small  CoLA, SST-2, MRPC, RTE and STS-B, the validation rows of each.
fdu_mtl     Reviews of 16 domains. Some of its test rows also stand in training files, of whatever domain; they are
            dropped from training, so that all test rows are clean.

Every finished run is a file of its own in the output folder. The command can be stopped at any time and typed again:
what is missing runs. Seconds are the processor's, of one thread; a system's cost is its seconds beside hard sharing's
with the same seed. `--page` writes the page of all finished runs, and beside it a JSON file for docs/systems.md.
"""
