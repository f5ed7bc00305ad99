//! Installs what a task needs and the machine lacks: Debian packages through apt when root, otherwise a message
//! that names them. Never installs what is there already.

use std::process::Command;

use anyhow::{Result, bail};

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
];

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
