//! Configurations as distributions and manuals have them, and broken ones.

use dna::{Accounts, Confidence, Known};

use super::*;
use crate::Rootfs;

/// What a server started by `line` claims of the files, one line a claim.
fn told(files: &[(&str, &str)], line: &[&str], env: &[(&str, &str)]) -> Vec<String> {
    let mut rootfs = Rootfs::default();
    for (path, text) in files {
        rootfs.put_file(path, 0o644, text);
    }
    let process = process(line, env);
    let accounts = Accounts::default();
    let claims = claims(&process, World { rootfs: &rootfs, accounts: &accounts, text_bytes: 1 << 20 });
    fn sure<T>(known: &Known<T>) -> &'static str {
        match known.confidence {
            Confidence::Certain => "",
            Confidence::Likely => " likely",
            Confidence::Possible => " possible",
        }
    }
    let mut lines: Vec<String> = Vec::new();
    for known in &claims.listen {
        let address = known.what.address.as_ref().map(|address| format!(" at {address}")).unwrap_or_default();
        lines.push(format!("{:?} {}{address}{}", known.what.protocol, known.what.port, sure(known)).to_lowercase());
    }
    lines.extend(claims.write.iter().map(|known| format!("write {}{}", known.what.path, sure(known))));
    lines.extend(claims.read.iter().map(|known| format!("read {}{}", known.what.path, sure(known))));
    lines.extend(claims.load.iter().map(|known| format!("load {}{}", known.what.path, sure(known))));
    lines.extend(claims.connect.iter().map(|known| {
        let port = known.what.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("connect {}{port}{}", known.what.host, sure(known))
    }));
    lines.extend(claims.users.iter().map(|(user, _)| format!("user {user}")));
    lines.extend(claims.chroot.iter().map(|(path, _)| format!("chroot {path}")));
    lines.extend(claims.unknowns.iter().map(|unknown| format!("unknown: {}", unknown.why)));
    lines.sort();
    lines.dedup();
    lines
}

fn process(line: &[&str], env: &[(&str, &str)]) -> Process {
    let program = line.first().copied().unwrap_or_default();
    let program = if program.starts_with('/') { program.to_owned() } else { format!("/usr/bin/{program}") };
    Process {
        program: program.parse().expect("a path"),
        argv: line.iter().map(|word| Some((*word).to_owned()).filter(|word| word != "?")).collect(),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect(),
        uid: None,
        cwd: "/srv".parse().expect("a path"),
        confidence: Confidence::Certain,
        told: None,
    }
}

/// The ports alone.
fn ports(files: &[(&str, &str)], line: &str, env: &[(&str, &str)]) -> String {
    let line: Vec<&str> = line.split(' ').collect();
    let told = told(files, &line, env);
    let ports: Vec<String> = told
        .into_iter()
        .filter(|line| line.starts_with("tcp") || line.starts_with("udp") || line.starts_with("unknown"))
        .collect();
    ports.join(", ")
}

#[test]
fn nginx_reads_its_tree_of_files() {
    let files = [
        (
            "/etc/nginx/nginx.conf",
            "user www-data;\npid /run/nginx.pid;\ninclude modules-enabled/*.conf;\nhttp {\n access_log /var/log/nginx/access.log;\n include /etc/nginx/conf.d/*.conf;\n}\nstream { server { listen 5353 udp; proxy_pass dns; } upstream dns { server 10.0.0.2:53; } }\n",
        ),
        ("/etc/nginx/modules-enabled/a.conf", "load_module /usr/lib/nginx/modules/a.so;"),
        ("/usr/lib/nginx/modules/a.so", ""),
        (
            "/etc/nginx/conf.d/a.conf",
            "upstream app { server app:3000; server unix:/run/a.sock; }\nserver { listen [::]:8443 ssl; listen 127.0.0.1:81; ssl_certificate_key /etc/ssl/k.pem;\n location / { proxy_pass http://app; }\n location /b { proxy_pass http://b.test/x; } location /c { proxy_pass http://$up; } }\nserver { server_name x; }\n",
        ),
        (
            "/usr/bin/nginx",
            "\0--conf-path=/etc/nginx/nginx.conf --http-proxy-temp-path=/var/lib/nginx/proxy --user=nobody\0",
        ),
    ];
    assert_eq!(
        told(&files, &["nginx", "-g", "daemon off; error_log /var/log/e.log;"], &[]),
        [
            "connect 10.0.0.2:53",
            "connect app:3000",
            "connect b.test:80",
            "load /usr/lib/nginx/modules/a.so",
            "read /etc/ssl/k.pem",
            "tcp 80",
            "tcp 81 at 127.0.0.1",
            "tcp 8443",
            "udp 5353",
            "user www-data",
            "write /run/nginx.pid",
            "write /var/lib/nginx/proxy likely",
            "write /var/lib/nginx/proxy/** possible",
            "write /var/log/e.log",
            "write /var/log/nginx/access.log",
        ]
    );
}

#[test]
fn nginx_templates_take_the_environment() {
    let files = [
        ("/etc/nginx/nginx.conf", "http { include conf.d/*.conf; }"),
        ("/etc/nginx/templates/a.conf.template", "server { listen ${PORT}; }\nserver { listen $OTHER; }"),
    ];
    assert_eq!(
        ports(&files, "nginx", &[("PORT", "8081")]),
        "tcp 8081 likely, unknown: what `http.server.listen $OTHER` listens on is only known at run time"
    );
}

#[test]
fn apache_asks_for_modules_and_its_variables() {
    let files = [
        (
            "/etc/apache2/apache2.conf",
            "PidFile ${APACHE_PID_FILE}\nUser ${APACHE_RUN_USER}\nInclude ports.conf\nInclude mods/*.load\nErrorLog ${APACHE_LOG_DIR}/error.log\n<VirtualHost *:80>\nCustomLog /var/log/c.log combined\nProxyPass /a http://app:8080/\n</VirtualHost>\n<IfModule mod_nope.c>\nListen 1\n</IfModule>\n<IfDefine Extra>\nListen 82\n</IfDefine>\n<IfModule !nope_module>\nListen 83\n</IfModule>\n",
        ),
        ("/etc/apache2/ports.conf", "Listen 80\n<IfModule ssl_module>\n\tListen 443\n</IfModule>\n"),
        ("/etc/apache2/mods/php.load", "LoadModule php_module /usr/lib/php.so\n"),
        ("/usr/lib/php.so", ""),
        (
            "/etc/apache2/envvars",
            "SUFFIX=\nexport APACHE_RUN_USER=www-data\nexport APACHE_PID_FILE=/var/run/apache2$SUFFIX/apache2.pid\nexport APACHE_LOG_DIR=/var/log/apache2$SUFFIX\n",
        ),
    ];
    assert_eq!(
        told(&files, &["/usr/sbin/apache2", "-DFOREGROUND", "-D", "Extra"], &[]),
        [
            "connect app:8080",
            "load /usr/lib/php.so",
            "tcp 80",
            "tcp 82",
            "tcp 83",
            "user www-data",
            "write /var/log/apache2/error.log",
            "write /var/log/c.log",
            "write /var/run/apache2/apache2.pid",
        ]
    );
    let ssl = [(
        "/usr/local/apache2/conf/httpd.conf",
        "LoadModule ssl_module a.so\n<IfModule mod_ssl.c>\nListen 443 https\n</IfModule>",
    )];
    assert_eq!(ports(&ssl, "httpd -DFOREGROUND", &[]), "tcp 443");
}

#[test]
fn haproxy_binds_and_calls() {
    let file = "global\n  chroot /var/lib/haproxy\n  user haproxy\n  stats socket /run/h.sock mode 660\nfrontend a\n  bind :\"${PORT}\" ssl crt /etc/h.pem\n  bind :90-91,quic4@:443\nbackend b\n  server s1 10.0.0.1:9999 check\n";
    assert_eq!(
        told(&[("/h.cfg", file)], &["haproxy", "-f", "/h.cfg"], &[("PORT", "80")]),
        [
            "chroot /var/lib/haproxy",
            "connect 10.0.0.1:9999",
            "read /etc/h.pem",
            "tcp 80",
            "tcp 90",
            "tcp 91",
            "udp 443",
            "user haproxy",
            "write /run/h.sock"
        ]
    );
}

#[test]
fn caddy_sites() {
    let run = |text: &str| ports(&[("/srv/Caddyfile", text)], "caddy run", &[]);
    assert_eq!(run("{\n\tadmin off\n}\nhttp://:8080 {\n}\n"), "tcp 8080");
    assert_eq!(
        run("localhost {\n respond ok\n}\n:81 {\n}"),
        "tcp 2019 at localhost likely, tcp 443, tcp 80, tcp 81, udp 443"
    );
    assert_eq!(run("{$SITE::8000}\nroot * /x\nreverse_proxy a:1\n"), "tcp 2019 at localhost likely, tcp 8000");
    assert_eq!(
        run("{\n auto_https off\n http_port 8080\n}\n(snip) {\n}\nexample.com, http://a.test {\n}\n"),
        "tcp 2019 at localhost likely, tcp 443, tcp 8080, udp 443"
    );
    let json = r#"{"admin": {"listen": ":2020"}, "apps": {"http": {"servers": {"a": {"listen": [":82"]}}}}}"#;
    assert_eq!(
        ports(&[("/c.json", json)], "caddy run --config /c.json", &[]),
        "tcp 2019 at localhost likely, tcp 2020, tcp 82"
    );
    assert_eq!(ports(&[], "caddy file-server --listen :2015", &[]), "tcp 2015");
}

#[test]
fn command_lines_go_over_files_and_files_over_defaults() {
    let file = [("/etc/redis.conf", "port 7000\nbind 127.0.0.1 ::1\ndir /data\n")];
    assert_eq!(ports(&file, "redis-server", &[]), "tcp 6379 likely");
    assert_eq!(ports(&file, "redis-server /etc/redis.conf", &[]), "tcp 7000");
    assert_eq!(ports(&file, "redis-server /etc/redis.conf --port 7001 --bind 10.0.0.1", &[]), "tcp 7001 at 10.0.0.1");
    assert_eq!(ports(&file, "redis-server --port 0 --unixsocket /run/r.sock", &[]), "");
    assert_eq!(ports(&[("/s.conf", "sentinel monitor a b 1 1")], "redis-sentinel /s.conf", &[]), "tcp 26379 likely");
    assert_eq!(
        ports(&[], "etcd --listen-client-urls=http://0.0.0.0:2379", &[("ETCD_LISTEN_PEER_URLS", "http://:2381")]),
        "tcp 2379, tcp 2381"
    );
    assert_eq!(ports(&[], "etcd", &[]), "tcp 2379 at localhost likely, tcp 2380 at localhost likely");
}

#[test]
fn what_is_not_in_the_image_or_not_known_is_unknown() {
    assert_eq!(
        ports(&[], "redis-server /x.conf", &[]),
        "tcp 6379 likely, unknown: the configuration `/x.conf` is not in the image"
    );
    assert_eq!(ports(&[], "redis-server ?", &[]), "tcp 6379 likely, unknown: argument 1 of the server is not known");
    assert_eq!(ports(&[], "redis-server --port ?", &[]), "unknown: the value of `--port` is not known");
    assert_eq!(
        ports(&[("/etc/mongod.conf", "a: [")], "mongod", &[]),
        "tcp 27017 likely, unknown: the configuration does not parse"
    );
    let endless = [("/etc/redis.conf", "include /etc/redis.conf\nport 1")];
    assert_eq!(
        ports(&endless, "redis-server /etc/redis.conf", &[]),
        "tcp 1, unknown: too much configuration, or nested too deep"
    );
}

#[test]
fn databases() {
    let conf = [("/data/postgresql.conf", "port = 5433  # x\nlisten_addresses = 'localhost'\n")];
    assert_eq!(ports(&conf, "postgres -D /data", &[]), "tcp 5433 at localhost");
    assert_eq!(ports(&conf, "postgres -D /data -c listen_addresses=*", &[]), "tcp 5433");
    assert_eq!(ports(&conf, "postgres --port=1 -clisten_addresses=*", &[("PGDATA", "/data")]), "tcp 1");
    assert_eq!(
        told(&conf, &["postgres", "-c", "listen_addresses="], &[])
            .iter()
            .filter(|line| line.starts_with("tcp"))
            .count(),
        0
    );
    let cnf = [
        ("/etc/mysql/my.cnf", "[client]\nport = 1\n!includedir /etc/mysql/conf.d/\n"),
        (
            "/etc/mysql/conf.d/a.cnf",
            "[mysqld]\nport=3307\nbind-address = 127.0.0.1\ndatadir=/var/lib/mysql\n[mysqldump]\nport=2\n",
        ),
    ];
    assert_eq!(ports(&cnf, "mariadbd", &[]), "tcp 3307 at 127.0.0.1");
    assert_eq!(ports(&cnf, "mysqld --skip-networking", &[]), "");
    assert!(told(&cnf, &["mysqld"], &[]).contains(&"write /var/lib/mysql/**".to_owned()));
    assert_eq!(
        ports(&[("/etc/mongod.conf", "net:\n  port: 27018\n  bindIp: 127.0.0.1\n")], "mongod -f /etc/mongod.conf", &[]),
        "tcp 27018 at 127.0.0.1"
    );
    assert_eq!(
        ports(&[], "memcached -p 1 -U 2 -l 127.0.0.1 -u memcache", &[]),
        "tcp 1 at 127.0.0.1, udp 2 at 127.0.0.1"
    );
    assert_eq!(ports(&[], "memcached -s /run/m.sock", &[]), "");
    assert_eq!(
        ports(&[("/usr/share/elasticsearch/config/elasticsearch.yml", "http.port: 9201\n")], "elasticsearch", &[]),
        "tcp 9201, tcp 9300 likely"
    );
    assert_eq!(
        ports(
            &[("/k.properties", "listeners=PLAINTEXT://:9092,CONTROLLER://:9093\n")],
            "kafka-server-start.sh /k.properties",
            &[]
        ),
        "tcp 9092, tcp 9093"
    );
    assert_eq!(
        ports(
            &[("/z.cfg", "clientPort=2182\nadmin.enableServer=false\n")],
            "zkServer.sh start-foreground",
            &[("ZOOCFGDIR", "/none")]
        ),
        "tcp 2181 likely, tcp 8080 likely"
    );
    assert_eq!(ports(&[], "minio server /data --console-address :9001", &[]), "tcp 9000 likely, tcp 9001");
    assert_eq!(ports(&[], "influxd", &[]), "tcp 8086 likely");
}

#[test]
fn messages_and_discovery() {
    let conf = [(
        "/m.conf",
        "listener 1883 127.0.0.1\nlistener 0 /run/m.sock\nlistener 9001\nprotocol websockets\npersistence true\npersistence_location /m/\nlog_dest file /var/log/m.log\nlog_dest stdout\n",
    )];
    assert_eq!(
        told(&conf, &["mosquitto", "-c", "/m.conf"], &[]),
        ["tcp 1883", "tcp 9001", "user mosquitto", "write /m likely", "write /m/**", "write /var/log/m.log"]
            .map(|line| line.replace(" likely", ""))
    );
    assert_eq!(ports(&[], "mosquitto", &[]), "tcp 1883 likely");
    assert_eq!(
        ports(
            &[("/n.conf", "port: 4223\nhttp_port = 8222\ncluster {\n listen: 0.0.0.0:6222\n}\n")],
            "nats-server -c /n.conf",
            &[]
        ),
        "tcp 4223, tcp 6222, tcp 8222"
    );
    assert_eq!(
        ports(
            &[("/etc/rabbitmq/rabbitmq.conf", "listeners.tcp.default = 5673\nmanagement.tcp.port = 15672\n")],
            "rabbitmq-server",
            &[]
        ),
        "tcp 15672, tcp 25672 likely, tcp 4369 likely, tcp 5673"
    );
    assert_eq!(
        ports(
            &[("/v.hcl", "listener \"tcp\" {\n  address = \"0.0.0.0:8200\"\n  tls_disable = 1\n}\n")],
            "vault server -config=/v.hcl",
            &[]
        ),
        "tcp 8200"
    );
    assert_eq!(ports(&[], "vault server -dev", &[]), "tcp 8200 at 127.0.0.1 likely");
    assert_eq!(
        ports(&[("/c.json", "{\"ports\": {\"http\": 8501, \"dns\": -1}}")], "consul agent -config-file /c.json", &[]),
        "tcp 8301 likely, tcp 8501, udp 8301 likely"
    );
}

#[test]
fn name_servers() {
    let unbound = [(
        "/etc/unbound/unbound.conf",
        "server:\n  interface: 0.0.0.0\n  interface: ::1@5353\n  chroot: \"\"\n  username: \"dns\"\nremote-control:\n  control-enable: yes\n",
    )];
    assert_eq!(
        ports(&unbound, "unbound -d -p", &[]),
        "tcp 53 likely, tcp 5353 at ::1, tcp 8953 at 127.0.0.1 likely, udp 53 likely, udp 5353 at ::1"
    );
    let named = [
        ("/etc/bind/named.conf", "include \"/etc/bind/o\";\nzone \"x\" { type master; };\n"),
        (
            "/etc/bind/o",
            "options {\n  directory \"/var/cache/bind\";\n  listen-on port 5300 { 127.0.0.1; };\n  listen-on-v6 { any; };\n};\ncontrols { };\n",
        ),
    ];
    assert_eq!(ports(&named, "named -u bind", &[]), "tcp 53, tcp 5300, tcp 953 at 127.0.0.1 likely, udp 53, udp 5300");
    let dnsmasq = [
        ("/etc/dnsmasq.conf", "conf-dir=/etc/dnsmasq.d,*.conf\n"),
        ("/etc/dnsmasq.d/a.conf", "port=5353\n"),
        ("/etc/dnsmasq.d/b.bak", "port=1\n"),
    ];
    assert_eq!(ports(&dnsmasq, "dnsmasq -k --log-facility=-", &[]), "tcp 5353, udp 5353");
    assert_eq!(
        ports(&[("/srv/Corefile", ". {\n  health :8081\n  ready\n}\nexample.org:1053 {\n}\n")], "coredns", &[]),
        "tcp 1053, tcp 53, tcp 8081, udp 1053, udp 53"
    );
    assert_eq!(
        ports(
            &[("/etc/nsd/nsd.conf", "server:\n ip-address: 127.0.0.1\nremote-control:\n control-enable: no\n")],
            "nsd -d",
            &[]
        ),
        "tcp 53 at 127.0.0.1 likely, udp 53 at 127.0.0.1 likely"
    );
}

#[test]
fn remote_access_and_mail() {
    let sshd = [
        (
            "/etc/ssh/sshd_config",
            "Include /etc/ssh/sshd_config.d/*.conf\n#Port 22\nHostKey /etc/ssh/k\nMatch User x\n ChrootDirectory /c\n",
        ),
        ("/etc/ssh/sshd_config.d/a.conf", "port 2222\n"),
    ];
    assert_eq!(
        told(&sshd, &["/usr/sbin/sshd", "-D"], &[]),
        [
            "chroot /run/sshd",
            "read /etc/shadow likely",
            "read /etc/ssh/k",
            "tcp 2222",
            "user sshd",
            "write /run/sshd.pid likely"
        ]
    );
    assert_eq!(ports(&[("/etc/ssh/sshd_config", "ListenAddress 0.0.0.0:2200\n")], "sshd -D", &[]), "tcp 2200");
    assert_eq!(ports(&[], "sshd -o Port=2022", &[]), "tcp 2022");
    assert_eq!(
        ports(&[("/f.conf", "listen=YES\npasv_min_port=30000\npasv_max_port=30002\n")], "vsftpd /f.conf", &[]),
        "tcp 21 likely, tcp 30000, tcp 30001, tcp 30002"
    );
    assert_eq!(
        ports(
            &[("/f.conf", "listen=YES\nlisten_port=2121\npasv_min_port=1\npasv_max_port=60000\n")],
            "vsftpd /f.conf",
            &[]
        ),
        "tcp 2121, unknown: 60000 ports from 1"
    );
    assert_eq!(
        ports(
            &[(
                "/etc/postfix/master.cf",
                "smtp      inet  n - y - - smtpd\n127.0.0.1:10025 inet n - n - - smtpd\n  -o x=y\npickup unix n - y 60 1 pickup\n"
            )],
            "postfix start-fg",
            &[]
        ),
        "tcp 10025 at 127.0.0.1, tcp 25"
    );
    assert_eq!(
        ports(
            &[(
                "/etc/dovecot/dovecot.conf",
                "protocols = imap\nservice imap-login {\n  inet_listener imap {\n    port = 1143\n  }\n  inet_listener imaps {\n    port = 0\n  }\n}\n"
            )],
            "dovecot -F",
            &[]
        ),
        "tcp 1143, tcp 143, tcp 993 likely"
    );
    assert_eq!(ports(&[], "exim4 -bdf -oX 25:587", &[]), "tcp 25, tcp 587");
    assert_eq!(ports(&[], "slapd", &[]), "tcp 389 likely");
    assert_eq!(ports(&[], "/usr/sbin/slapd -h ldaps:///", &[]), "tcp 636");
    assert_eq!(ports(&[], "rsync --daemon --no-detach", &[]), "tcp 873 likely");
    assert_eq!(ports(&[], "rsync -a x y", &[]), "");
}

#[test]
fn application_servers() {
    let fpm = [
        (
            "/usr/local/etc/php-fpm.conf",
            "[global]\nerror_log = /proc/self/fd/2\ninclude=/usr/local/etc/php-fpm.d/*.conf\n",
        ),
        ("/usr/local/etc/php-fpm.d/a.conf", "[www]\nuser = www\nlisten = 127.0.0.1:9000\n"),
        ("/usr/local/etc/php-fpm.d/z.conf", "[www]\nlisten = 9000\n"),
    ];
    assert_eq!(told(&fpm, &["php-fpm", "-F"], &[]), ["tcp 9000", "user www"]);
    assert_eq!(ports(&[], "gunicorn app:app", &[]), "tcp 8000 at 127.0.0.1 likely");
    assert_eq!(ports(&[], "gunicorn app:app", &[("PORT", "5000")]), "tcp 5000 likely");
    assert_eq!(ports(&[], "gunicorn app:app", &[("GUNICORN_CMD_ARGS", "--bind=0.0.0.0:81 --workers 3")]), "tcp 81");
    assert_eq!(
        ports(
            &[("/srv/gunicorn.conf.py", "# x\nbind = [\"0.0.0.0:82\", 'unix:/run/g.sock']\nworkers = 2\n")],
            "gunicorn app:app",
            &[]
        ),
        "tcp 82"
    );
    assert_eq!(ports(&[("/srv/gunicorn.conf.py", "bind = '0.0.0.0:82'")], "gunicorn -b :83 app:app", &[]), "tcp 83");
    assert_eq!(ports(&[], "uvicorn app:app --host 0.0.0.0 --port 80", &[]), "tcp 80");
    assert_eq!(ports(&[], "uvicorn app:app --uds /run/u.sock", &[]), "");
    assert_eq!(ports(&[], "python3 -m http.server", &[]), "tcp 8000 likely");
    assert_eq!(ports(&[], "python3 -m uvicorn app:app --port 81", &[]), "tcp 81 at 127.0.0.1");
    assert_eq!(ports(&[], "php -S 0.0.0.0:8080 -t public", &[]), "tcp 8080");
    assert_eq!(ports(&[], "/bin/busybox httpd -f", &[]), "tcp 80 likely");
    assert_eq!(ports(&[], "nc -l -p 81", &[]), "tcp 81");
    assert_eq!(ports(&[], "nc -p 81 host 80", &[]), "");
    let server = "<Server port=\"8005\"><Service><Connector port=\"8080\" protocol=\"HTTP/1.1\"/><!-- <Connector port=\"8443\"/> --></Service></Server>";
    assert_eq!(ports(&[("/usr/local/tomcat/conf/server.xml", server)], "catalina.sh run", &[]), "tcp 8005, tcp 8080");
    assert_eq!(ports(&[], "java -Xmx1g -Dserver.port=8090 -jar app.jar", &[]), "tcp 8090 likely");
}

#[test]
fn a_supervisor_writes_its_own_files_and_those_of_what_it_starts() {
    let main = "; comment\n[unix_http_server]\nfile=/run/supervisor.sock ; the socket\n[inet_http_server]\nport=127.0.0.1:9001\n[supervisord]\nlogfile=/var/log/supervisor/supervisord.log\npidfile=/run/supervisord.pid\nchildlogdir=/var/log/supervisor\n[include]\nfiles = conf.d/*.conf\n";
    let program = "[program:web]\ncommand=/usr/bin/web\nstdout_logfile=/dev/stdout\nstderr_logfile=/var/log/web.err\n[program:job]\ncommand=/usr/bin/job\nstdout_logfile=AUTO\nstderr_logfile=NONE\n";
    let files = [("/etc/supervisor/supervisord.conf", main), ("/etc/supervisor/conf.d/web.conf", program)];
    assert_eq!(
        told(&files, &["supervisord", "-n", "-c", "/etc/supervisor/supervisord.conf"], &[]),
        [
            "tcp 9001 at 127.0.0.1",
            "write /run/supervisor.sock",
            "write /run/supervisord.pid",
            "write /var/log/supervisor",
            "write /var/log/supervisor/**",
            "write /var/log/supervisor/supervisord.log",
            "write /var/log/web.err",
        ]
    );
}

#[test]
fn proxies_and_watchers() {
    assert_eq!(ports(&[], "traefik --entrypoints.web.address=:80 --api.insecure=true", &[]), "tcp 80, tcp 8080 likely");
    let envoy = "static_resources:\n  listeners:\n  - address:\n      socket_address: { address: 0.0.0.0, port_value: 10000 }\nadmin:\n  address:\n    socket_address: { address: 127.0.0.1, port_value: 9901 }\n";
    assert_eq!(ports(&[("/e.yaml", envoy)], "envoy -c /e.yaml", &[]), "tcp 10000, tcp 9901");
    assert_eq!(ports(&[("/etc/squid/squid.conf", "http_port 3129 intercept\n")], "squid -N", &[]), "tcp 3129");
    assert_eq!(ports(&[], "varnishd -F -a :8080,PROXY -b web:80", &[]), "tcp 8080");
    assert_eq!(ports(&[], "varnishd -F -b web:80", &[]), "tcp 80 likely");
    assert_eq!(ports(&[], "varnishd -F -a http=:6081,HTTP -b web:80", &[]), "tcp 6081");
    assert_eq!(
        ports(
            &[
                ("/etc/lighttpd/lighttpd.conf", "server.port = 81\ninclude \"conf.d/*.conf\"\n"),
                ("/etc/lighttpd/conf.d/a.conf", "$SERVER[\"socket\"] == \":443\" {\n}\n")
            ],
            "lighttpd -D -f /etc/lighttpd/lighttpd.conf",
            &[]
        ),
        "tcp 443, tcp 81"
    );
    assert_eq!(ports(&[], "prometheus --config.file=/p.yml --web.listen-address=:9091", &[]), "tcp 9091");
    assert_eq!(ports(&[], "prometheus-node-exporter", &[]), "tcp 9100 likely");
    assert_eq!(
        ports(
            &[("/etc/grafana/grafana.ini", "[server]\n;http_port = 1\n")],
            "grafana server",
            &[("GF_SERVER_HTTP_PORT", "3001")]
        ),
        "tcp 3001"
    );
}

#[test]
fn hostile_numbers_are_bounded() {
    let many = format!("http {{ {} }}", "server { listen 1-900; }".repeat(1_000));
    let told = told(&[("/etc/nginx/nginx.conf", &many)], &["nginx"], &[]);
    assert_eq!(told.iter().filter(|line| line.starts_with("tcp")).count(), 900);
    assert!(told.contains(&"unknown: more than 5000 ports; the rest was left out".to_owned()), "{told:?}");
    let open = "interface: $A$A\n".repeat(20_000);
    let told = self::told(&[("/etc/unbound/unbound.conf", &format!("server:\n{open}"))], &["unbound"], &[]);
    assert!(told.len() < 20, "{told:?}");
}

#[test]
fn hints_are_no_more_certain_than_their_process() {
    let rootfs = Rootfs::default();
    let accounts = Accounts::default();
    let process = Process { confidence: Confidence::Possible, ..process(&["redis-server", "--port", "1"], &[]) };
    let claims = claims(&process, World { rootfs: &rootfs, accounts: &accounts, text_bytes: 1 << 20 });
    assert_eq!(claims.listen.first().map(|known| known.confidence), Some(Confidence::Possible));
}

#[test]
fn evidence_names_the_line_and_no_secret() {
    let mut rootfs = Rootfs::default();
    rootfs.put_file("/r.conf", 0o644, "# x\nport 7000 password=hunter2secret\n");
    let accounts = Accounts::default();
    let claims = claims(
        &process(&["redis-server", "/r.conf"], &[]),
        World { rootfs: &rootfs, accounts: &accounts, text_bytes: 1 << 20 },
    );
    let shown = format!("{:?}", claims.listen);
    assert!(shown.contains("line: Some(2)") && shown.contains("port 7000") && !shown.contains("hunter2"), "{shown}");
}
