//! What the rules say about made-up traffic: just under and just over each line, ordinary traffic
//! that must stay silent, disorder, and floods of forged sources against the bounds.
#![forbid(unsafe_code)]

mod bounds;
mod floods;
mod order;
mod ordinary;
mod records;
mod scans;
mod sessions;
