//! The compiler, the linker and the stripper that make the object: finds them, or installs them.
//!
//! Debian's `rustc-web` comes with a `core` for the BPF target, so that no nightly compiler is needed; the linker
//! is built from its published crate against the same release of LLVM.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{say, setup, shell};

/// Debian's compiler; the rustup one that runs this task has no `core` for the BPF target.
const RUSTC: &str = "/usr/bin/rustc";
/// Where Debian puts LLVM; the release is the one that `rustc-web` 1.96 writes its bitcode for.
const LLVM: &str = "/usr/lib/llvm-22";
/// What the linker is built with.
const LINKER_FEATURE: &str = "llvm-22";
const LINKER_VERSION: &str = "0.13.0";
/// The BPF target: little-endian, as every machine that the sensor runs on.
pub(super) const TARGET: &str = "bpfel-unknown-none";
/// Debian packages, all of the distribution's main and security suites.
const PACKAGES: [&str; 4] =
    ["rustc-web", "libstd-rust-web-dev-bpf", "llvm-22-dev", "libpolly-22-dev"];

/// What makes the object.
pub(super) struct Toolchain {
    pub(super) rustc: PathBuf,
    pub(super) linker: PathBuf,
    pub(super) objcopy: PathBuf,
    pub(super) rustc_version: String,
    pub(super) linker_version: String,
    pub(super) llvm_version: String,
}

impl Toolchain {
    /// Finds it; installs what is missing.
    pub(super) fn ensure() -> Result<Self> {
        if !has_bpf_core() || !Path::new(LLVM).join("bin/llvm-config").is_file() {
            setup::install(&PACKAGES)?;
        }
        if !has_bpf_core() {
            bail!(
                "{RUSTC} has no core library for {TARGET}, although {} is installed",
                PACKAGES[1]
            );
        }
        let linker = match find_linker() {
            Some(linker) => linker,
            None => install_linker()?,
        };
        let llvm = Path::new(LLVM).join("bin");
        let llvm_version = shell::read(Command::new(llvm.join("llvm-config")).arg("--version"))?;
        Ok(Self {
            rustc: PathBuf::from(RUSTC),
            rustc_version: version(Path::new(RUSTC))?,
            linker_version: version(&linker)?,
            linker,
            objcopy: llvm.join("llvm-objcopy"),
            llvm_version: llvm_version.trim().to_owned(),
        })
    }
}

fn has_bpf_core() -> bool {
    let sysroot = shell::read(Command::new(RUSTC).args(["--print", "sysroot"]));
    sysroot.is_ok_and(|sysroot| {
        Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("lib").is_dir()
    })
}

/// Beside what this workspace builds, or anywhere in the search path, in the version that is asked for.
fn find_linker() -> Option<PathBuf> {
    let search = std::env::var_os("PATH");
    let own = std::iter::once(linker_root().join("bin"));
    own.chain(search.iter().flat_map(std::env::split_paths))
        .map(|folder| folder.join("bpf-linker"))
        .find(|linker| {
            linker.is_file()
                && version(linker).is_ok_and(|version| version.ends_with(LINKER_VERSION))
        })
}

fn linker_root() -> PathBuf {
    shell::target_folder().join("tools")
}

fn install_linker() -> Result<PathBuf> {
    say(format_args!("building bpf-linker {LINKER_VERSION} (about a minute, once)"));
    let root = linker_root();
    let mut install = shell::cargo();
    install
        .args(["install", "bpf-linker", "--locked", "--no-default-features"])
        .args(["--version", &format!("={LINKER_VERSION}"), "--features", LINKER_FEATURE])
        .arg("--root")
        .arg(&root)
        .env("LLVM_PREFIX", LLVM)
        .env_remove("RUSTFLAGS");
    shell::run(&mut install)?;
    let linker = root.join("bin").join("bpf-linker");
    if !linker.is_file() {
        bail!("cargo installed no {}", linker.display());
    }
    Ok(linker)
}

fn version(program: &Path) -> Result<String> {
    let text = shell::read(Command::new(program).arg("--version"))?;
    let line =
        text.lines().next().with_context(|| format!("{} has no version", program.display()))?;
    Ok(line.trim().to_owned())
}
