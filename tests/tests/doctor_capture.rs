//! `doctor FILE`: the faults of a mirror are found in a capture too; no capture of the shared folder, however
//! odd, stops it; and the inspection counts the same in the kernel (`BPF_PROG_TEST_RUN`) and in user space.
#![forbid(unsafe_code)]

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use flow::inspect::InspectTotals;
use sensor::{
    CaptureError, CaptureFile, FRAME_BYTES_MAX, FRAME_BYTES_MIN, Inspector, KernelInspection,
    LinkType, Report, Severity, doctor_file,
};
use tests::{MirroredFrame, capture_folder, mirrored, skip, stay_on_one_cpu};

/// Makes the fingerprints of both machines.
const SEED: u64 = 0x0123_4567_89ab_cdef;
/// Frames of each capture that are also tried cut at every length.
const CUT_PER_FILE: usize = 4;
/// Bytes at the start of a frame that are cut one by one.
const HEADER_BYTES: usize = 100;
/// A millisecond between two frames.
const STEP_US: u32 = 1000;

/// Every capture below a folder, sorted.
fn captures(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end != "md" && end != "csv") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A pcap of these frames, of which at most `snap` bytes each are kept.
fn capture(frames: &[MirroredFrame], snap: usize) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for (number, frame) in (0_u32..).zip(frames) {
        let kept = frame.bytes.get(..snap).unwrap_or(&frame.bytes);
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let time_us = number * STEP_US;
        let (seconds, microseconds) = (1_700_000_000 + time_us / 1_000_000, time_us % 1_000_000);
        for word in [seconds, microseconds, length(kept), length(&frame.bytes)] {
            file.extend(word.to_le_bytes());
        }
        file.extend(kept);
    }
    file
}

fn examine(frames: &[MirroredFrame], snap: usize) -> Result<Report> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("mirror.pcap");
    std::fs::write(&path, capture(frames, snap))?;
    Ok(doctor_file(&path)?)
}

fn found(report: &Report, severity: Severity) -> Vec<&str> {
    let findings = report.findings.iter().filter(|finding| finding.severity == severity);
    findings.map(|finding| finding.check).collect()
}

#[test]
fn the_faults_of_a_mirror_are_found_in_a_capture() -> Result<()> {
    let usual = || mirrored(40, 8, 1000);
    let clean = examine(&usual(), usize::MAX)?;
    assert_eq!(found(&clean, Severity::Fault), [""; 0]);
    assert_eq!(found(&clean, Severity::Warning), [""; 0]);
    let traffic = clean.traffic.context("a capture has traffic")?;
    assert_eq!(traffic.duration_ms, Some(u64::try_from(usual().len())? - 1));

    let tag = |frame: MirroredFrame| if frame.from_client { frame } else { frame.tagged(20) };
    let twice = |frame: MirroredFrame| [frame.clone(), frame];
    let mut cut = usual();
    for frame in &mut cut {
        frame.bytes.truncate(128);
    }
    let faulty: [(&str, Vec<MirroredFrame>); 5] = [
        ("vlan_asymmetric", usual().into_iter().map(tag).collect()),
        ("duplicates", usual().into_iter().flat_map(twice).collect()),
        ("one_direction", usual().into_iter().filter(|frame| frame.from_client).collect()),
        ("frames_cut", cut),
        ("mtu", usual().into_iter().filter(|frame| !frame.has_payload).collect()),
    ];
    for (check, frames) in faulty {
        let report = examine(&frames, usize::MAX)?;
        ensure!(
            found(&report, Severity::Fault).contains(&check),
            "{check}: {}",
            report.text(false)
        );
    }
    Ok(())
}

#[test]
fn a_short_snap_length_is_no_fault_of_the_mirror() -> Result<()> {
    let report = examine(&mirrored(40, 8, 1000), 96)?;
    assert_eq!(found(&report, Severity::Fault), [""; 0]);
    assert_eq!(found(&report, Severity::Note), ["snap_length"]);
    Ok(())
}

#[test]
fn a_capture_that_ends_inside_a_frame_is_judged_as_far_as_it_goes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("mirror.pcap");
    let mut bytes = capture(&mirrored(40, 8, 1000), usize::MAX);
    bytes.truncate(bytes.len() - 7);
    std::fs::write(&path, bytes)?;
    let report = doctor_file(&path)?;
    assert_eq!(found(&report, Severity::Warning), ["capture_broken"]);
    ensure!(found(&report, Severity::Fine).contains(&"duplicates"), "{}", report.text(false));
    Ok(())
}

#[test]
fn no_shared_capture_stops_the_doctor() -> Result<()> {
    let Some(folder) = capture_folder() else { return Ok(()) };
    let captures = captures(&folder)?;
    let mut examined = 0;
    for path in &captures {
        match doctor_file(path) {
            Ok(report) => {
                let traffic = report.traffic.as_ref().context("a capture has traffic")?;
                ensure!(traffic.packets_ip <= traffic.frames, "{}", path.display());
                ensure!(!report.findings.is_empty() && !report.text(true).is_empty(), "a verdict");
                examined += 1;
            }
            Err(error) => ensure!(!error.to_string().is_empty(), "an error has words"),
        }
    }
    ensure!(examined > captures.len() / 2, "most files are captures: {examined}");
    Ok(())
}

/// The inspection on both machines.
struct Both {
    kernel: KernelInspection,
    user_space: Inspector,
}

impl Both {
    fn feed(&mut self, frame: &[u8]) -> Result<()> {
        self.kernel.feed(frame)?;
        let length = frame.len() as u64;
        self.user_space.handle_frame(flow::LinkLayer::Ethernet, frame, length, 0);
        Ok(())
    }

    fn compare(&mut self, after: &Path) -> Result<()> {
        let (rows, mut in_kernel) = self.kernel.read();
        let (expected, in_user_space) = self.user_space.read();
        ensure!(rows == [expected], "{}: {rows:#?} is not {expected:#?}", after.display());
        for stream in in_kernel.iter_mut().flat_map(|conversation| &mut conversation.streams) {
            // User space says CPU 0; all frames went through one.
            stream.cpu = 0;
        }
        ensure!(in_kernel.len() == in_user_space.len(), "{}: as many", after.display());
        let mut pairs = in_kernel.iter().zip(&in_user_space);
        let different = pairs.find(|(kernel, user_space)| kernel != user_space);
        ensure!(different.is_none(), "{}: {different:#?}", after.display());
        Ok(())
    }
}

#[test]
fn the_kernel_inspects_as_user_space_does() -> Result<()> {
    let Some(folder) = capture_folder() else { return Ok(()) };
    stay_on_one_cpu()?;
    let kernel = match KernelInspection::load(SEED) {
        Err(CaptureError::NotPermitted { .. }) => {
            skip("the kernel does not let this user load XDP programs");
            return Ok(());
        }
        kernel => kernel?,
    };
    let mut both = Both { kernel, user_space: Inspector::new(SEED) };
    for path in captures(&folder.join("decode"))? {
        let Ok(mut file) = CaptureFile::open(File::open(&path)?) else { continue };
        let mut number = 0;
        // A file that is broken further on is read up to there.
        while let Ok(Some(frame)) = file.next_frame() {
            let fits = (FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&frame.bytes.len());
            if frame.link != LinkType::Ethernet || !fits {
                continue;
            }
            both.feed(frame.bytes)?;
            if number < CUT_PER_FILE {
                for end in FRAME_BYTES_MIN..frame.bytes.len().min(HEADER_BYTES) {
                    both.feed(frame.bytes.get(..end).context("inside the frame")?)?;
                }
            }
            number += 1;
        }
        both.compare(&path)?;
    }
    let (InspectTotals { frames, copies, .. }, conversations) = both.user_space.read();
    ensure!(frames > 10_000 && copies > 0 && conversations.len() > 100, "{frames} frames are few");
    Ok(())
}
