//! Builds the eBPF object and proves that the committed one is what its sources build.
//!
//! In: the sources of `sensor-ebpf` and of what it takes from `flow`. Out: `sensor-ebpf/prebuilt/` with the object
//! and a manifest that says what it was made from and with. Users never need this: they have the object.

mod compile;
mod manifest;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

use crate::{say, shell};
use manifest::Manifest;
use toolchain::Toolchain;

/// What can be done with the eBPF object.
#[derive(Clone, Copy, Subcommand)]
pub(crate) enum Command {
    /// Install what building the object needs: Debian packages when root, and the linker.
    Setup,
    /// Build the object and its manifest.
    Build,
    /// Rebuild in another folder and require equal bytes.
    Verify,
}

/// Carries out one of them.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Setup => setup(),
        Command::Build => build(),
        Command::Verify => verify(),
    }
}

/// Makes sure that the object can be built.
pub(crate) fn setup() -> Result<()> {
    let toolchain = Toolchain::ensure()?;
    say(format_args!("{}; {}", toolchain.rustc_version, toolchain.linker_version));
    Ok(())
}

/// Builds the object and its manifest.
pub(crate) fn build() -> Result<()> {
    let toolchain = Toolchain::ensure()?;
    let workspace = shell::workspace();
    let built = compile::compile(&toolchain, &workspace, &shell::target_folder().join("ebpf"))?;
    let manifest = Manifest::new(&toolchain, &workspace, &built)?;
    let folder = prebuilt(&workspace);
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create the folder {}", folder.display()))?;
    let object = folder.join(manifest::OBJECT);
    fs::write(&object, &built.object)
        .with_context(|| format!("cannot write {}", object.display()))?;
    manifest.store(&folder)?;
    say(format_args!("{} bytes, SHA-256 {}", built.object.len(), manifest.object_sha256));
    Ok(())
}

/// Rebuilds the object from a copy of the workspace in another folder, and requires the committed bytes.
pub(crate) fn verify() -> Result<()> {
    let workspace = shell::workspace();
    let folder = prebuilt(&workspace);
    let committed = Manifest::load(&folder)?;
    committed.check(&workspace)?;
    let toolchain = Toolchain::ensure()?;
    committed.check_toolchain(&toolchain)?;
    let copy = tempfile::tempdir().context("cannot create a temporary folder")?;
    let elsewhere = copy.path().join("elsewhere");
    compile::copy_workspace(&workspace, &elsewhere)?;
    let built = compile::compile(&toolchain, &elsewhere, &copy.path().join("target"))?;
    let rebuilt = manifest::sha256(&built.object);
    if rebuilt != committed.object_sha256 {
        let kept = shell::target_folder().join("rebuilt.bpf.o");
        fs::write(&kept, &built.object)
            .with_context(|| format!("cannot write {}", kept.display()))?;
        bail!(
            "the sources build another object than the committed one: {rebuilt} is not {}; it is kept in {}",
            committed.object_sha256,
            kept.display()
        );
    }
    say(format_args!("rebuilt in another folder: equal bytes, SHA-256 {rebuilt}"));
    Ok(())
}

fn prebuilt(workspace: &Path) -> PathBuf {
    workspace.join("sensor-ebpf").join("prebuilt")
}

#[cfg(test)]
mod tests;
