//! Drills on a whole edge under constant load: whatever fails, no GET does while one endpoint of
//! its tenant lives. Needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

mod registry_drills;
