//! What both sides share.
#![no_std]
