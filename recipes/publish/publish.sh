#!/usr/bin/env bash
# Trains the quickstart, pushes it to a Hub on this machine, deletes it here, and asks it as somebody would who has
# never heard of hf_mtl. From the project's root, in the environment of the README:
#
#     bash recipes/publish/publish.sh
#
# With HF_ENDPOINT set to a Hub and HF_TOKEN to a token of it, it pushes there instead.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
repo=${REPO:-ann/support-desk}
folder=$(mktemp -d)
export TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=0 HF_HUB_DISABLE_XET=1 NO_PROXY=127.0.0.1
export HF_HOME=$folder/home HF_TOKEN=${HF_TOKEN:-hf_writer}

if [ -z "${HF_ENDPOINT:-}" ]; then
    $python -m tests.hub.loopback_hub "$folder/address" & hub=$!
    trap 'kill $hub; rm -rf "$folder"' EXIT
    until [ -s "$folder/address" ]; do sleep 0.1; done
    HF_ENDPOINT=$(cat "$folder/address")
    export HF_ENDPOINT
else
    trap 'rm -rf "$folder"' EXIT
fi

echo "== Train the quickstart, and push it to $HF_ENDPOINT/$repo"
$python -m hf_mtl.cli train recipes/support_desk/train.yaml --output_dir "$folder/model" --disable_tqdm true \
    --push_to_hub true --hub_model_id "$repo" --hub_strategy end "$@"
$python recipes/publish/ask.py "$folder/model" hf_mtl/data/support_desk/intent/validation.jsonl "$folder/before.jsonl"

if [ $# -eq 0 ] && [ -f model_cards/support_desk.md ]; then
    $python model_cards/make_cards.py --cards support_desk --compare "$folder/model/README.md"
fi

echo "== The README's first example prints what it says"
$python tests/first_example.py "$folder/model"

echo "== Delete it here, and make an environment that has the libraries and not hf_mtl"
rm -rf "$folder/model" "$folder/home"
$python -m venv --without-pip "$folder/stranger"
site=$($python -c "import sysconfig; print(sysconfig.get_path('purelib'))")
# A path in a .pth file is searched, but the .pth files there, of which hf_mtl's is one, are not read.
echo "$site" > "$(echo "$folder"/stranger/lib/python*/site-packages)/libraries.pth"
cp recipes/publish/ask.py hf_mtl/data/support_desk/intent/validation.jsonl "$folder"
cd "$folder"
if stranger/bin/python -c "import hf_mtl" 2> /dev/null; then
    echo "hf_mtl is installed there; run this in an environment where it is installed with pip install -e." >&2
    exit 1
fi

echo "== Load it from the Hub there, and answer the file again"
stranger/bin/python ask.py "$repo" validation.jsonl after.jsonl
cmp before.jsonl after.jsonl && echo "Every answer is as before: $(wc -l < after.jsonl) rows, all tasks."
