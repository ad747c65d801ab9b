#!/usr/bin/env bash
# The step of the action: train the grid, compare the run with the baseline, and report the verdict. action.yml says which
# variables it reads. It exits with the code of `harness gate`, or with that of `harness run` if it gave no results.
set -uo pipefail

folder=$(mktemp -d "${RUNNER_TEMP:-/tmp}/gate-XXXXXX")
run=$folder/run
summary=$folder/summary.md
code_allowed=()
if [ "${ALLOW_CODE:-}" = true ]; then code_allowed=(--allow-code); fi
strict=()
if [ "${STRICT:-}" = true ]; then strict=(--strict); fi

# Report an error of a command, whose last lines are in errors.txt. Indented text is shown as it is.
failed() {
    # An annotation is one line, in which % begins an escape.
    first=$(grep -m 1 . "$folder/errors.txt" | cut -c 1-300 | sed 's/%/%25/g')
    echo "::error title=$1 failed with exit code $2::${first:-see the log of this step}"
    { echo "## Regression gate: $1 failed"; echo; tail -n 40 "$folder/errors.txt" | cut -c 1-400 | sed 's/^/    /'; } >"$summary"
}

# While it trains, a line of the log that looks like a command of GitHub Actions is text.
token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
echo "::stop-commands::$token"
harness run --grid "$GRID" --model "$MODEL" --engine "$ENGINE" --confirm-seeds 0 --output "$run" \
    "${code_allowed[@]}" -- "$SUITE" 2> >(tee "$folder/errors.txt" >&2)
code=$?
wait
echo "::$token::"

# With exit code 3, some trials failed. The gate compares the others.
if [ "$code" != 0 ] && [ "$code" != 3 ]; then
    failed "harness run" "$code"
else
    trained=$code
    harness gate "$run" --baseline "$BASELINE" --markdown "$summary" "${strict[@]}" "${code_allowed[@]}" \
        2> >(tee "$folder/errors.txt" >&2)
    code=$?
    wait
    if [ ! -f "$summary" ]; then
        failed "harness gate" "$code"
    elif [ "$code" = 0 ] && [ "$trained" != 0 ]; then
        echo "::error title=harness run::some trials failed; see the log of this step"
        code=$trained
    fi
fi

cat "$summary" >>"${GITHUB_STEP_SUMMARY:-/dev/stdout}"
{ echo "code=$code"; echo "run=$run"; } >>"${GITHUB_OUTPUT:-/dev/null}"
if [ "${COMMENT:-}" = true ] && [ -n "${PULL_REQUEST:-}" ]; then
    gh pr comment "$PULL_REQUEST" --body-file "$summary" --edit-last --create-if-none ||
        echo "::warning title=gate::the verdict could not be added to the pull request; has the token pull-requests: write?"
fi
exit "$code"
