//! In: `tcp=75,udp=25` from the command line. Out: what a number below 100 falls on.

use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::ValueEnum;

/// One kind and how many of a hundred flows are of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share<T> {
    pub(super) kind: T,
    pub(super) percent: u8,
}

impl<T: ValueEnum> FromStr for Share<T> {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, percent) = text.split_once('=').context("a share is written KIND=PERCENT")?;
        let kind = T::from_str(name, false).map_err(|_unknown| {
            let known: Vec<_> = T::value_variants()
                .iter()
                .filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()))
                .collect();
            anyhow!("there is no `{name}`; there are {}", known.join(", "))
        })?;
        let percent = percent.parse().ok().filter(|percent| *percent <= 100);
        Ok(Self { kind, percent: percent.context("a percentage is a number from 0 to 100")? })
    }
}

/// What the shares leave of a hundred.
pub(super) fn rest<T>(shares: &[Share<T>]) -> Result<u8> {
    let sum: u32 = shares.iter().map(|share| u32::from(share.percent)).sum();
    ensure!(sum <= 100, "they are {sum} of 100");
    u8::try_from(100 - sum).context("a part of a hundred")
}

/// Which kind a number below 100 falls on; the one behind the last share for those that are left.
pub(super) fn fall<T>(shares: &[Share<T>], number: u8) -> usize {
    let mut end = 0;
    shares
        .iter()
        .position(|share| {
            end += share.percent;
            number < end
        })
        .unwrap_or(shares.len())
}

/// Bytes of a frame, as captured frames are counted: without the check sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameBytes {
    /// Every frame alike.
    Fixed(u16),
    /// As on a line to the Internet: 45 of 100 short, 35 full, 20 between.
    Mix,
}

impl FrameBytes {
    /// Shortest and longest that can be asked for.
    const RANGE: std::ops::RangeInclusive<u16> = 60..=9_018;
    /// A full frame of most lines.
    const FULL: u16 = 1_514;
    const SHORT: u16 = 66;

    /// The length that a number drawn evenly from all stands for.
    pub(super) fn draw(self, lot: u32) -> u16 {
        if let Self::Fixed(bytes) = self {
            return bytes;
        }
        let (hundredth, [_, _, high, low]) = (lot % 100, (lot / 100).to_be_bytes());
        let between = u16::from_be_bytes([high, low]) % (Self::FULL - Self::SHORT);
        match hundredth {
            0..45 => Self::SHORT + between % 30,
            45..80 => Self::FULL,
            _ => Self::SHORT + between,
        }
    }
}

impl FromStr for FrameBytes {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "mix" {
            return Ok(Self::Mix);
        }
        match text.parse() {
            Ok(bytes) if Self::RANGE.contains(&bytes) => Ok(Self::Fixed(bytes)),
            _ => bail!(
                "frames are `mix`, or a number of bytes from {} to {}",
                Self::RANGE.start(),
                Self::RANGE.end()
            ),
        }
    }
}
