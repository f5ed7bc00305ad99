//! Member reports: what happened in a period, in words that a manager can act on.
//!
//! In: a [`ReportInput`]. Out: one self-contained HTML page. Never prints "0 attacks" for time that
//! nobody observed.

mod advice;
mod gather;
mod model;
mod render;
#[cfg(test)]
mod tests;
mod timeline;
mod view;
mod words;

pub use gather::{Asked, gather, parse_time};
pub use model::{
    Coverage, Interval, Period, PeriodName, PortRow, ReportInput, Sent, SourceRow, TargetRow,
};
pub use render::{RenderError, render};
