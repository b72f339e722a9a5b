//! What containers are configured by: a ConfigMap that changes while a pod runs is another configuration, and the pod is bound again.

use std::{collections::BTreeSet, env, path::PathBuf, time::Instant};

use lineage::{BindingRow, Ledger};
use serde_json::{Value, json};
use tests::run;

use crate::world::{BUSYBOX, World, is_running, kill_of_pod, pod, wait};

/// A real server: the image, what is started in place of its own command, where the ConfigMap is mounted, the one file in it, with `PORT` in
/// place of the port.
struct Server {
    image: &'static str,
    command: &'static [&'static str],
    folder: &'static str,
    file: &'static str,
    text: &'static str,
}

const SERVERS: [Server; 11] = [
    Server {
        image: "nginx",
        command: &["nginx", "-g", "daemon off;"],
        folder: "/etc/nginx",
        file: "nginx.conf",
        text: "events {}\nhttp { server { listen PORT; location / { return 204; } } }\n",
    },
    Server {
        image: "redis",
        command: &["redis-server", "/config/redis.conf"],
        folder: "/config",
        file: "redis.conf",
        text: "port PORT\nprotected-mode no\ndir /tmp\n",
    },
    Server {
        image: "haproxy",
        command: &["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"],
        folder: "/usr/local/etc/haproxy",
        file: "haproxy.cfg",
        text: "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\nfrontend web\n  bind *:PORT\n",
    },
    Server {
        image: "mosquitto",
        command: &["mosquitto", "-c", "/mosquitto/config/mosquitto.conf"],
        folder: "/mosquitto/config",
        file: "mosquitto.conf",
        text: "listener PORT\nallow_anonymous true\n",
    },
    Server {
        image: "unbound",
        command: &["unbound", "-d", "-p", "-c", "/config/unbound.conf"],
        folder: "/config",
        file: "unbound.conf",
        text: "server:\n  interface: 0.0.0.0@PORT\n  chroot: \"\"\n",
    },
    Server {
        image: "dnsmasq",
        command: &["dnsmasq", "-k", "--log-facility=-", "--conf-file=/config/dnsmasq.conf"],
        folder: "/config",
        file: "dnsmasq.conf",
        text: "port=PORT\nuser=root\n",
    },
    Server {
        image: "caddy",
        command: &[],
        folder: "/etc/caddy",
        file: "Caddyfile",
        text: ":PORT {\n\trespond \"ok\"\n}\n",
    },
    Server {
        image: "memcached",
        command: &["sh", "/scripts/run.sh"],
        folder: "/scripts",
        file: "run.sh",
        text: "#!/bin/sh\nset -e\nexec memcached -p PORT\n",
    },
    Server {
        image: "node-http",
        command: &["node", "/usr/src/app/server.js"],
        folder: "/usr/src/app",
        file: "server.js",
        text: "require('http').createServer((request, response) => response.end('ok')).listen(PORT);\n",
    },
    Server {
        image: "flask-gunicorn",
        command: &["gunicorn", "-c", "/config/gunicorn.conf.py", "app:app"],
        folder: "/config",
        file: "gunicorn.conf.py",
        text: "bind = \"0.0.0.0:PORT\"\nworkers = 1\n",
    },
    Server {
        image: "sshd",
        command: &["/usr/sbin/sshd", "-D", "-e", "-f", "/config/sshd_config"],
        folder: "/config",
        file: "sshd_config",
        text: "Port PORT\nHostKey /etc/ssh/ssh_host_ed25519_key\n",
    },
];

/// Ports before and after.
const PORTS: [u16; 2] = [7101, 7202];

/// `IMAGES` names the folder of real images, `CONFIGURED_IMAGES` how many of them are taken.
pub(crate) fn real_servers_are_bound_again_when_their_configuration_changes(world: &World) {
    let Some(images) = env::var_os("IMAGES").map(PathBuf::from) else {
        println!("no real images: IMAGES does not name their folder");
        return;
    };
    let count = env::var("CONFIGURED_IMAGES").map_or(SERVERS.len(), |count| count.parse().expect("a number"));
    let servers = &SERVERS[..count.min(SERVERS.len())];
    world.namespace("servers", false);
    let config = |server: &Server, port: u16| {
        let text = server.text.replace("PORT", &port.to_string());
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": server.image, "namespace": "servers"},
            "data": {server.file: text}})
    };
    for server in servers {
        let image = format!("127.0.0.1:5000/servers/{}:1", server.image);
        run(world.cluster.inside("crane").arg("push").arg(images.join(server.image)).arg(&image)).ok();
        world.cluster.create(&config(server, PORTS[0]));
        let mut container = json!({"name": "main", "image": image,
            "volumeMounts": [{"name": "config", "mountPath": server.folder}]});
        if !server.command.is_empty() {
            container["command"] = json!(server.command);
        }
        world.cluster.create(&pod(
            "servers",
            server.image,
            &json!({"automountServiceAccountToken": false, "enableServiceLinks": false, "containers": [container],
                "volumes": [{"name": "config", "configMap": {"name": server.image}}]}),
        ));
    }
    let bound_to = |server: &Server, port: u16, other: u16| {
        wait(300, &format!("{} is bound to port {port}", server.image), || {
            let (_, expectation) = bound(world, "servers", server.image)?;
            let ports = listening(&expectation);
            if ports.contains(&u64::from(port)) && !ports.contains(&u64::from(other)) {
                Ok(())
            } else {
                Err(format!("{ports:?} {:#}", expectation["findings"]))
            }
        });
    };
    for server in servers {
        bound_to(server, PORTS[0], PORTS[1]);
    }
    let running = |server: &&Server| is_running(&world.cluster.get("servers", "pod", server.image));
    println!("{} real servers are bound, {} of them run", servers.len(), servers.iter().filter(running).count());
    for server in servers {
        world.cluster.kubectl_with(&["apply", "--server-side", "--force-conflicts"], &config(server, PORTS[1])).ok();
    }
    let changed = Instant::now();
    for server in servers {
        bound_to(server, PORTS[1], PORTS[0]);
        println!("{}: port {} after {:.0} s", server.image, PORTS[1], changed.elapsed().as_secs_f32());
    }
    world.cluster.kubectl(["delete", "namespace", "servers", "--wait=false"]).ok();
}

pub(crate) fn a_script_that_changes_counts_at_once_and_a_variable_from_the_next_start(world: &World) {
    world.namespace("configured", false);
    let map = |name: &str, key: &str, value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "configured"}, "data": {key: value}});
    let script = |port: u16| format!("#!/bin/sh\nexec busybox httpd -f -p {port}\n");
    let apply = |object: &Value| {
        world.cluster.kubectl_with(&["apply", "--server-side", "--force-conflicts"], object).ok();
    };
    let configure = |[file, single, variable]: [u16; 3]| {
        apply(&map("scripts", "run.sh", &script(file)));
        apply(&map("single", "one.sh", &script(single)));
        apply(&map("variables", "port", &variable.to_string()));
    };
    let (before, after) = ([7001, 7002, 7003], [8001, 8002, 8003]);
    configure(before);
    let create = |name: &str, command: Value, more: Value| {
        let mut container = json!({"name": "main", "image": BUSYBOX, "command": command});
        container.as_object_mut().expect("fields").extend(more.as_object().cloned().expect("fields"));
        let volumes = json!([{"name": "scripts", "configMap": {"name": "scripts"}}, {"name": "single", "configMap": {"name": "single"}}]);
        world.cluster.create(&pod("configured", name, &json!({"containers": [container], "volumes": volumes})));
    };
    let mount = json!({"volumeMounts": [{"name": "scripts", "mountPath": "/scripts"}]});
    create("file", json!(["sh", "/scripts/run.sh"]), mount);
    let mount = json!({"volumeMounts": [{"name": "single", "mountPath": "/one.sh", "subPath": "one.sh"}]});
    create("single", json!(["sh", "/one.sh"]), mount);
    let from = json!({"configMapKeyRef": {"name": "variables", "key": "port"}});
    let env = json!({"env": [{"name": "PORT", "valueFrom": from}]});
    create("variable", json!(["busybox", "httpd", "-f", "-p", "$(PORT)"]), env);
    world.all_run("configured", 3);
    let starts = world.starts();
    let listens = |name: &str, port: u16| {
        wait(120, &format!("{name} is bound to port {port}"), || {
            let (_, expectation) = bound(world, "configured", name)?;
            let ports = listening(&expectation);
            if ports == BTreeSet::from([port.into()]) { Ok(()) } else { Err(format!("{ports:?}")) }
        });
    };
    listens("file", before[0]);
    listens("single", before[1]);
    listens("variable", before[2]);
    // Each is looked at once, so that what follows is a change.
    wait(90, "every pod is covered", || {
        let uncovered = world.metric("mayfly_pods{state=\"uncovered\"}");
        if uncovered == 0.0 { Ok(()) } else { Err(format!("{uncovered}")) }
    });

    configure(after);
    listens("file", after[0]);
    // Which of them the kubelet renews in a running container.
    let inside = |name: &str, file: &str| {
        let shown = world.cluster.kubectl(["exec", "-n", "configured", name, "--", "busybox", "cat", file]);
        shown.text() + &shown.stderr
    };
    wait(150, "the kubelet renews the file", || {
        let text = inside("file", "/scripts/run.sh");
        if text == script(after[0]) { Ok(()) } else { Err(text) }
    });
    assert_eq!(inside("single", "/one.sh"), script(before[1]));
    listens("single", before[1]);
    listens("variable", before[2]);

    // Their next start: the kubelet starts again what was killed.
    for name in ["single", "variable"] {
        let uid = world.cluster.get("configured", "pod", name)["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let killed = kill_of_pod(&uid, "busybox httpd");
        assert_eq!(killed, 1, "of {name}");
    }
    listens("single", after[1]);
    listens("variable", after[2]);
    assert_eq!(world.starts(), starts, "the webhook was not started again");
    world.cluster.kubectl(["delete", "namespace", "configured", "--wait=false"]).ok();
}

/// What the only container of a pod is bound to.
fn bound(world: &World, namespace: &str, name: &str) -> Result<(BindingRow, Value), String> {
    let uid = world.cluster.get(namespace, "pod", name)["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let url = format!("sqlite:{}", world.cluster.folder().join("mayfly/ledger.db").display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let ledger = Ledger::open(&url).await.map_err(|error| error.to_string())?;
        let rows = ledger.bindings_of_pod("default", &uid).await.map_err(|error| error.to_string())?;
        let count = rows.len();
        let [row] = <[BindingRow; 1]>::try_from(rows).map_err(|_| format!("{count} bindings of {name}"))?;
        let digest = row.expectation.clone().ok_or("it is bound to nothing yet")?;
        let bytes = ledger.expectation(&digest).await.map_err(|error| error.to_string())?.ok_or("it is not there")?;
        ledger.close().await;
        Ok((row, serde_json::from_slice(&bytes).map_err(|error| error.to_string())?))
    })
}

fn listening(expectation: &Value) -> BTreeSet<u64> {
    let listen = expectation["behavior"]["listen"].as_array().into_iter().flatten();
    listen.filter_map(|item| item["port"].as_u64()).collect()
}
