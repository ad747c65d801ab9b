"""Files on disk: run directories, the cache, baselines and mirrors.

This package defines all paths in them, and how dataclasses are stored as JSON. It imports only `core`, whose types the
files contain.

A run directory contains the inputs and the results of one run:

    RUN/run.json                      the inputs: suite, plan, model, machine (RunManifest)
    RUN/trials/TRIAL/record.json      a finished trial; the last file that a trial writes (TrialRecord)
    RUN/confirm/TRIAL/record.json     a finished trial of the confirmation
    RUN/workers/001.json, 001.log     the job and the log of each worker process
    RUN/parity/LABEL.json             differences between the answers of an adapter and of its GGUF file (Parity)
    RUN/exports/                      exported models
    RUN/results.json                  the results, from which the report is made (Results)
    RUN/samples.jsonl                 every answer with its score, one per line
    RUN/report.html                   the report
    RUN/tracked.json                  digests of the trials that each experiment tracker was given

The cache contains results that take long to compute. All runs share it:

    CACHE/trainings/ID/               an adapter; training.json, the outcome of the training, is written last
    CACHE/trainings/ID-epoch-N/       the adapter of a training after N epochs
    CACHE/answers/ID/*.json           answers of an adapter or a base model, without scores (AnswerPass)
    CACHE/bases/ID/                   a quantised base model as `save_pretrained` writes it, with base.json
    CACHE/calibrations/ID.json        the measured speed of a GPU; `harness clean` does not delete it
    CACHE/commits/                    trainings and answers that are being added, in folders named as in CACHE
    CACHE/users/                      one lock file for each run that uses the cache

A baseline is one JSON file, reports/baselines/NAME.json (Baseline), formatted for version control.

A file is complete as soon as it has its final name, because it is written under a temporary name, `.partial-*`, and
then renamed. Temporary files of a killed process are ignored until `harness clean` deletes them. Entries that are added
to the cache together are written to a folder in CACHE/commits; renaming this folder commits them. They are then moved
to their final places. If the process is killed before it moves them, the next reader of the cache moves them.
"""
