//! What the police run: batches in, findings and reports out.
//!
//! In: sealed batches over the link. Out: rows in the lake, findings in the database, answers and reports. Never
//! sees a packet, a kernel layout or a private key of a sensor.
#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod database;
pub mod detection;
pub mod evidence;
pub mod folder;
pub mod ingest;
pub mod lake;
pub mod listing;
pub mod query;
pub mod report;
pub mod serve;
pub mod status;
mod trouble;
pub mod verify;
