//! The command line, end to end, against the real kernel: one module per noun.

#![allow(clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod commit;
mod crash;
mod devices;
mod diagnosis;
mod doctor;
mod events;
mod exec;
mod explain;
mod export;
mod files;
mod forms;
mod image;
mod image_archive;
mod image_archive_faults;
mod image_crash;
mod image_exchange;
mod image_history;
mod image_list;
mod image_prune;
mod image_remove;
mod isolation;
mod lifecycle;
mod limits;
mod logs;
mod naming;
mod nesting;
mod network;
mod network_connect;
mod network_crash;
mod network_create;
mod network_damage;
mod network_edges;
mod network_many;
mod network_names;
mod network_ports;
mod network_races;
mod network_reach;
mod oom;
mod pause;
mod process;
mod pull;
mod push;
mod query;
mod registry;
mod registry_client;
mod registry_faults;
mod registry_login;
mod registry_trust;
mod registry_upload;
mod restart;
mod restart_clients;
mod run;
mod selfcheck;
mod stats;
mod streams;
mod systemd;
mod terminal;
mod top;
mod update;
mod usage;
mod why;
