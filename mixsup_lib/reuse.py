"""What a finished run is good for: segment a patient with it."""

from __future__ import annotations

from pathlib import Path

from mixsup_lib.cohort import open_patient
from mixsup_lib.compute import set_up
from mixsup_lib.errors import DataError
from mixsup_lib.runs import load_network, load_run
from mixsup_lib.saved_state import WEIGHTS, load_weights
from mixsup_lib.segmentation import label_volume, save_nifti, score_slices
from mixsup_lib.slices import patient_slices


def segment_case(run_folder: str | Path, case_folder: str | Path, output: str | Path) -> Path:
    """Segment one patient with a finished run and write the labels as NIfTI on the axes of the patient's own files.

    Args:
        run_folder: finished run whose weights are used.
        case_folder: folder of the patient; its sequences must be those the network was trained on.
        output: file to write, `.nii.gz` or `.nii`; multiclass in BraTS label values (1, 2, 4), binary 1.

    Raises:
        DataError: the run or the patient cannot be used.
    """
    config, _ = load_run(run_folder)
    device, precision = set_up(config)
    case = open_patient(case_folder).read_images()
    slices, frame = patient_slices(case, config.pixel_mm, config.window)
    trained_on = _input_channels(Path(run_folder))
    if slices.shape[1] != trained_on:
        raise DataError(
            f"{case_folder}: has {slices.shape[1]} sequences ({', '.join(case.sequences)}), but the run was trained on "
            f"{trained_on}; use a run of the same sequences."
        )
    network = load_network(run_folder, trained_on, slices.shape[2:]).to(device)
    probabilities, _ = score_slices(network, slices, device=device, precision=precision)
    labels = label_volume(probabilities, frame)
    save_nifti(output, labels, case, multiclass=config.task == "multiclass")
    return Path(output)


def _input_channels(run_folder: Path) -> int:
    """Number of sequences of the trained network, read off its first convolution."""
    first = load_weights(run_folder).get("unet.encoder.0.0.0.weight")
    if first is None or first.ndim != 4:
        raise DataError(f"{run_folder / WEIGHTS}: holds no U-Net of this library; run it again.")
    return first.shape[1]
