//! What the transfer pod's mover is made of. It drives `xrdcp` and `xrdfs`, which move the bytes;
//! itself it decides what goes in which part, keeps the journal, and puts everything in its place
//! on the far side. `main.rs` is the command line over it.
//!
//! One transfer is a folder below the server's export, and these files in it:
//!
//! | file | who | what |
//! | --- | --- | --- |
//! | `list.ready` | sender | every path with type, size, mode and time, and the parts ([`list`]) |
//! | `N.up` | sender | part N on its way: a bundle of small files, or one large file |
//! | `N.ready` | sender | part N is whole; renamed from `N.up` |
//! | `begun` | receiver | the destination was empty and is now this transfer's |
//! | `N.done` | receiver | part N is in its place and on the disk |
//! | `done` | receiver | everything is |
//!
//! Names of files travel in the list alone, so no tool on the way ever sees an odd one: a part is
//! named by its number, and an entry of a bundle by its place in the list.

pub mod bundle;
pub mod cache;
pub mod events;
pub mod journal;
pub mod layout;
pub mod list;
pub mod manifest;
pub mod names;
pub mod place;
pub mod plan;
pub mod receive;
pub mod send;
pub mod tree;
pub mod unpack;
pub mod watch;
pub mod xrd;
