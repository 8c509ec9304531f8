//! The command line, end to end, against the real kernel: one module per noun.

#![allow(clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod devices;
mod diagnosis;
mod doctor;
mod events;
mod exec;
mod explain;
mod files;
mod forms;
mod health;
mod health_process;
mod image;
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
mod why;
