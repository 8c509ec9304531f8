use super::*;
use crate::container::sample::config;
use crate::container::{Attachment, Dns};

const HOST: &str =
    "search corp lan\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\noptions ndots:2 rotate\n";

fn on(network: NetworkMode, dns: Dns) -> Config {
    let mut config = config();
    config.networking.attachments = vec![Attachment { network: "bridge".into(), ..Attachment::default() }];
    config.networking.dns = dns;
    config.namespaces.network = network;
    config
}

#[test]
fn on_networks_the_containers_own_resolver_is_asked() {
    let text = resolv_conf(HOST, &on(NetworkMode::Networks, Dns::default()));
    assert_eq!(text, "nameserver 127.0.0.11\nsearch corp lan\noptions ndots:2 rotate\n");
    let dns =
        Dns { servers: vec!["9.9.9.9".parse().unwrap()], search: vec![".".into()], options: vec!["use-vc".into()] };
    let text = resolv_conf(HOST, &on(NetworkMode::Networks, dns));
    assert_eq!(text, "nameserver 127.0.0.11\noptions use-vc ndots:0\n");
}

#[test]
fn loopback_servers_stay_outside_unless_the_network_is_shared() {
    let text = resolv_conf(HOST, &on(NetworkMode::None, Dns::default()));
    assert_eq!(text, "nameserver 10.0.0.2\nnameserver fe80::1%eth0\nsearch corp lan\noptions ndots:2 rotate\n");
    assert_eq!(resolv_conf(HOST, &on(NetworkMode::Host, Dns::default())), HOST);
    let dns = Dns { servers: vec!["127.0.0.53".parse().unwrap()], ..Dns::default() };
    let text = resolv_conf("", &on(NetworkMode::Host, dns));
    assert_eq!(text, "nameserver 127.0.0.53\n");
    assert!(resolv_conf("", &on(NetworkMode::None, Dns::default())).starts_with('#'));
}
