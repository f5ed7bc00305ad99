//! What the committed objects were made from and with, as JSON beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::compile::{Built, OBJECTS};
use super::toolchain::Toolchain;

const MANIFEST: &str = "manifest.json";
/// Packages from the registry whose code is in the objects.
const CRATES: [&str; 4] = ["aya-ebpf", "aya-ebpf-bindings", "aya-ebpf-cty", "aya-ebpf-macros"];

/// Hashes are SHA-256 in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// Hash of each object, by the name of its file.
    pub(super) objects: BTreeMap<String, String>,
    /// Over the list of `sources`, one `hash  path` a line.
    sources_sha256: String,
    rustc: String,
    linker: String,
    llvm: String,
    command: String,
    crates: BTreeMap<String, String>,
    sources: BTreeMap<String, String>,
}

impl Manifest {
    pub(super) fn new(toolchain: &Toolchain, workspace: &Path, built: &Built) -> Result<Self> {
        let mut sources = BTreeMap::new();
        for path in &built.sources {
            let name = path.to_str().with_context(|| format!("{} is no text", path.display()))?;
            sources.insert(name.to_owned(), hash_of(&workspace.join(path))?);
        }
        Ok(Self {
            objects: hashes(built),
            sources_sha256: hash_of_list(&sources),
            rustc: toolchain.rustc_version.clone(),
            linker: toolchain.linker_version.clone(),
            llvm: toolchain.llvm_version.clone(),
            command: built.command.clone(),
            crates: locked_crates(workspace)?,
            sources,
        })
    }

    pub(super) fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no manifest", path.display()))
    }

    pub(super) fn store(&self, folder: &Path) -> Result<()> {
        let path = folder.join(MANIFEST);
        let mut text = serde_json::to_string_pretty(self).context("a manifest is plain data")?;
        text.push('\n');
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Whether sources, crates and object are still those of this manifest.
    pub(super) fn check(&self, workspace: &Path) -> Result<()> {
        let remedy = "run `cargo xtask ebpf build` and commit what it writes";
        ensure!(
            hash_of_list(&self.sources) == self.sources_sha256,
            "the manifest's list of sources and its hash disagree; {remedy}"
        );
        for (path, hash) in &self.sources {
            let found = hash_of(&workspace.join(path))?;
            if found != *hash {
                bail!("{path} is not what the committed eBPF objects were built from; {remedy}");
            }
        }
        ensure!(
            locked_crates(workspace)? == self.crates,
            "Cargo.lock names other crates than the committed eBPF objects were built from; {remedy}"
        );
        let expected = OBJECTS.map(|object| object.file.to_owned());
        ensure!(
            self.objects.keys().eq(expected.iter().collect::<BTreeSet<_>>()),
            "the manifest does not list the objects {}; {remedy}",
            expected.join(", ")
        );
        for (file, hash) in &self.objects {
            ensure!(
                hash_of(&super::prebuilt(workspace).join(file))? == *hash,
                "{file} is not the object of its manifest; {remedy}"
            );
        }
        Ok(())
    }

    /// Whether equal bytes can be asked of this toolchain.
    pub(super) fn check_toolchain(&self, toolchain: &Toolchain) -> Result<()> {
        let pairs = [
            ("compiler", &self.rustc, &toolchain.rustc_version),
            ("linker", &self.linker, &toolchain.linker_version),
            ("LLVM", &self.llvm, &toolchain.llvm_version),
        ];
        for (what, wanted, found) in pairs {
            ensure!(
                wanted == found,
                "the {what} here is `{found}`, and the committed objects were made with `{wanted}`: \
                 the same one can show equal bytes; `cargo xtask ebpf build` would make new objects"
            );
        }
        Ok(())
    }
}

/// Hash of each object that was built.
pub(super) fn hashes(built: &Built) -> BTreeMap<String, String> {
    built.objects.iter().map(|(file, bytes)| ((*file).to_owned(), sha256(bytes))).collect()
}

/// In hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    let digits: Vec<_> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

fn hash_of(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(sha256(&bytes))
}

fn hash_of_list(sources: &BTreeMap<String, String>) -> String {
    let lines: Vec<_> = sources.iter().map(|(path, hash)| format!("{hash}  {path}\n")).collect();
    sha256(lines.concat().as_bytes())
}

/// Versions of the registry's crates in the objects, from Cargo.lock.
fn locked_crates(workspace: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
    }
    let path = workspace.join("Cargo.lock");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lock: Lock =
        toml::from_str(&text).with_context(|| format!("{} is no lock file", path.display()))?;
    let crates = lock.package.into_iter().filter(|package| CRATES.contains(&package.name.as_str()));
    Ok(crates.map(|package| (package.name, package.version)).collect())
}
