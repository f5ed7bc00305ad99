//! The backend's stages against a real lake, database and link, in folders and on loopback ports of their own.

mod binary;
mod codes;
mod findings;
mod ingest;
mod lab;
mod link;
mod query;
mod report;
