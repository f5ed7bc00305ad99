//! Builds the eBPF objects and proves that the committed ones are what their sources build.
//!
//! In: the sources of `sensor-ebpf` and of what it takes from `flow`. Out: `sensor-ebpf/prebuilt/` with the objects
//! and a manifest that says what they were made from and with. Users never need this: they have the objects.

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

/// What can be done with the eBPF objects.
#[derive(Clone, Copy, Subcommand)]
pub(crate) enum Command {
    /// Install what building the objects needs: Debian packages when root, and the linker.
    Setup,
    /// Build the objects and their manifest.
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

/// Makes sure that the objects can be built.
pub(crate) fn setup() -> Result<()> {
    let toolchain = Toolchain::ensure()?;
    say(format_args!("{}; {}", toolchain.rustc_version, toolchain.linker_version));
    Ok(())
}

/// Builds the objects and their manifest.
pub(crate) fn build() -> Result<()> {
    let toolchain = Toolchain::ensure()?;
    let workspace = shell::workspace();
    let built = compile::compile(&toolchain, &workspace, &shell::target_folder().join("ebpf"))?;
    let manifest = Manifest::new(&toolchain, &workspace, &built)?;
    let folder = prebuilt(&workspace);
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create the folder {}", folder.display()))?;
    for (file, object) in &built.objects {
        let path = folder.join(file);
        fs::write(&path, object).with_context(|| format!("cannot write {}", path.display()))?;
        say(format_args!("{file}: {} bytes, SHA-256 {}", object.len(), manifest::sha256(object)));
    }
    manifest.store(&folder)
}

/// Rebuilds the objects from a copy of the workspace in another folder, and requires the committed bytes.
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
    let rebuilt = manifest::hashes(&built);
    for (file, object) in &built.objects {
        let (Some(hash), Some(wanted)) = (rebuilt.get(*file), committed.objects.get(*file)) else {
            bail!("the committed manifest does not name {file}");
        };
        if hash != wanted {
            let kept = shell::target_folder().join(format!("rebuilt-{file}"));
            fs::write(&kept, object).with_context(|| format!("cannot write {}", kept.display()))?;
            bail!(
                "the sources build another {file} than the committed one: {hash} is not {wanted}; \
                 it is kept in {}",
                kept.display()
            );
        }
        say(format_args!("{file}: rebuilt in another folder, equal bytes, SHA-256 {hash}"));
    }
    Ok(())
}

fn prebuilt(workspace: &Path) -> PathBuf {
    workspace.join("sensor-ebpf").join("prebuilt")
}

#[cfg(test)]
mod tests;
