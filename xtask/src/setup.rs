//! Installs what a task needs and the machine lacks: Debian packages through apt when root, otherwise a message
//! that names them; Python packages into the target folder. Never installs what is there already.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// A program, and the Debian package that holds it.
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
}

/// What the live demo needs: namespaces, veth pairs and port mirroring.
pub(crate) const DEMO: &[Tool] =
    &[Tool { program: "ip", package: "iproute2" }, Tool { program: "tc", package: "iproute2" }];

/// What the tests need beside that: offloads to switch for the doctor, and the third opinion on every capture.
pub(crate) const TEST: &[Tool] = &[
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "tc", package: "iproute2" },
    Tool { program: "ethtool", package: "ethtool" },
    Tool { program: "tshark", package: "tshark" },
    Tool { program: "script", package: "bsdutils" },
    Tool { program: "nfcapd", package: "nfdump" },
    Tool { program: "nfdump", package: "nfdump" },
    Tool { program: "python3", package: "python3" },
];

/// What the tests ask for another opinion on Parquet files.
const PYTHON_PACKAGES: &[&str] = &["duckdb==1.4.5"];

/// Makes sure that every tool is there.
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    let mut missing: Vec<_> = tools
        .iter()
        .filter(|tool| !shell::is_installed(tool.program))
        .map(|tool| tool.package)
        .collect();
    missing.dedup();
    install(&missing)
}

/// Makes sure that the Python packages of the tests are in an environment of their own, `tools/python` in the
/// target folder.
pub(crate) fn ensure_python() -> Result<()> {
    let folder = shell::target_folder().join("tools/python");
    let (done, wanted) = (folder.join("installed"), PYTHON_PACKAGES.join("\n"));
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    // Debian keeps the part that makes environments in a package without a program.
    let mut asked = Command::new("python3");
    if shell::read(asked.args(["-c", "import ensurepip, venv"])).is_err() {
        install(&["python3-venv"])?;
    }
    shell::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["--quiet", "--disable-pip-version-check", "install"]).args(PYTHON_PACKAGES);
    shell::run(&mut pip)?;
    fs::write(&done, wanted).with_context(|| done.display().to_string())
}

/// Installs Debian packages; nothing to do for an empty list.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !shell::is_root() || !shell::is_installed("apt-get") {
        bail!("these Debian packages are needed: {list}; as root: apt-get install {list}");
    }
    let mut update = Command::new("apt-get");
    shell::run(update.args(["-qq", "update"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    let mut install = Command::new("apt-get");
    install.args(["-qq", "install", "--yes", "--no-install-recommends"]).args(packages);
    shell::run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}
