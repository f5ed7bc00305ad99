//! One build of the objects: from a workspace in any folder to bytes that do not tell which folder it was.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::toolchain::{TARGET, Toolchain};
use crate::shell;

const PACKAGE: &str = "sensor-ebpf";
const PROFILE: &str = "ebpf";
/// What stands in the object for the workspace's folder and for the registry's.
const WORKSPACE_NAME: &str = "/spanwatch";
const REGISTRY_NAME: &str = "/registry";
/// Variables that would change what is built.
const INFLUENCES: [&str; 6] =
    ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_ENCODED_", "RUSTFLAGS", "RUSTC_"];

/// One of the package's programs, each of which is linked to an object of its own.
pub(super) struct Object {
    /// Name of the program, as cargo has it.
    program: &'static str,
    /// Name of the object's file.
    pub(super) file: &'static str,
}

/// Every object: the one that the sensor carries, the designs it is compared with and the test programs, and one
/// that breaks the product's promise so that the check of objects has something to refuse.
pub(super) const OBJECTS: [Object; 3] = [
    Object { program: PACKAGE, file: "spanwatch.bpf.o" },
    Object { program: "comparison", file: "comparison.bpf.o" },
    Object { program: "leak", file: "leak.bpf.o" },
];

/// The objects and what they were made from.
pub(super) struct Built {
    /// Name of the file and its bytes.
    pub(super) objects: Vec<(&'static str, Vec<u8>)>,
    /// Of all objects together, relative to the workspace, sorted.
    pub(super) sources: BTreeSet<PathBuf>,
    /// The command, without paths of this machine.
    pub(super) command: String,
}

/// Builds the objects from the workspace in this folder.
pub(super) fn compile(toolchain: &Toolchain, workspace: &Path, target: &Path) -> Result<Built> {
    let registry = registry(workspace)?;
    let flags = flags(toolchain, workspace, &registry);
    let arguments =
        ["build", "--locked", "--package", PACKAGE, "--target", TARGET, "--profile", PROFILE];
    let mut build = shell::cargo();
    for (name, _) in std::env::vars_os() {
        let influences = name
            .to_str()
            .is_some_and(|name| INFLUENCES.iter().any(|influence| name.starts_with(influence)));
        if influences {
            build.env_remove(name);
        }
    }
    build
        .current_dir(workspace)
        .args(arguments)
        .env("RUSTC", &toolchain.rustc)
        // The BPF target is not a stable one; Debian's compiler is a stable one that knows it.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    shell::run(&mut build)?;
    let folder = target.join(TARGET).join(PROFILE);
    let mut objects = Vec::with_capacity(OBJECTS.len());
    let mut sources = BTreeSet::new();
    for Object { program, file } in OBJECTS {
        let linked = folder.join(program);
        let stripped = folder.join(file);
        // What the kernel reads (BTF) stays; what only a debugger reads is three quarters of the file.
        shell::run(
            Command::new(&toolchain.objcopy).arg("--strip-debug").args([&linked, &stripped]),
        )?;
        let object =
            fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))?;
        refuse_paths(file, &object, workspace, &registry)?;
        objects.push((file, object));
        sources.extend(sources_of(&folder.join(format!("{program}.d")), workspace)?);
    }
    sources.extend([Path::new(PACKAGE).join("Cargo.toml"), Path::new("flow").join("Cargo.toml")]);
    let command = format!("cargo {}", arguments.join(" "));
    Ok(Built { objects, sources, command })
}

fn flags(toolchain: &Toolchain, workspace: &Path, registry: &Path) -> OsString {
    let mut linker = OsString::from("-Clinker=");
    linker.push(&toolchain.linker);
    let remap = |from: &Path, to: &str| {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flag
    };
    [
        linker,
        "-Clink-arg=--btf".into(),
        "-Ctarget-cpu=v3".into(),
        // Headers are not aligned; without this a 4-byte field becomes four loads and three shifts.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".into(),
        remap(workspace, WORKSPACE_NAME),
        remap(registry, REGISTRY_NAME),
    ]
    .join(&OsString::from("\u{1f}"))
}

/// The folder that holds the sources of the crates from the registry.
fn registry(workspace: &Path) -> Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(workspace.join("Cargo.toml"))
        .other_options(["--locked".to_owned()])
        .exec()
        .context("cannot read the workspace's metadata")?;
    metadata
        .packages
        .iter()
        .find(|package| *package.name == "aya-ebpf")
        .and_then(|package| package.manifest_path.parent()?.parent())
        .map(|folder| folder.as_std_path().to_owned())
        .context("the workspace does not use aya-ebpf")
}

/// An object must not tell where it was built.
fn refuse_paths(file: &str, object: &[u8], workspace: &Path, registry: &Path) -> Result<()> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    for path in [Some(workspace), Some(registry), home.as_deref()].into_iter().flatten() {
        let bytes = path.as_os_str().as_encoded_bytes();
        if bytes.len() > 1 && object.windows(bytes.len()).any(|window| window == bytes) {
            bail!("{file} names the folder {}", path.display());
        }
    }
    Ok(())
}

/// Reads cargo's list of the files that went into one object.
fn sources_of(list: &Path, workspace: &Path) -> Result<Vec<PathBuf>> {
    let text =
        fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
    let (_, files) = text
        .split_once(": ")
        .with_context(|| format!("{} is not a list of files", list.display()))?;
    // Spaces within a name are written as `\ `.
    let sources: Vec<_> = files
        .trim()
        .replace("\\ ", "\0")
        .split_whitespace()
        .filter_map(|file| {
            let file = PathBuf::from(file.replace('\0', " "));
            file.strip_prefix(workspace).ok().map(Path::to_owned)
        })
        .collect();
    if !sources.contains(&Path::new(PACKAGE).join("src/cache.rs")) {
        bail!("{} does not name the program's own sources", list.display());
    }
    Ok(sources)
}

/// Copies everything that cargo needs to know the workspace.
pub(super) fn copy_workspace(from: &Path, to: &Path) -> Result<()> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(from.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("cannot read the workspace's members")?;
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for file in ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"] {
        copy_file(&from.join(file), &to.join(file))?;
    }
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().context("a manifest lies in a folder")?;
        let relative = folder
            .as_std_path()
            .strip_prefix(from)
            .with_context(|| format!("package {} lies outside of the workspace", package.name))?;
        copy_folder(folder.as_std_path(), &to.join(relative))?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", from.display()))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_folder(&source, &target)?;
        } else {
            copy_file(&source, &target)?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
