//! What it costs to have events on disk, beside what it costs to parse them: `cargo bench --workspace --bench log [FOLDER]`.
//!
//! FOLDER is on the disk to measure; without it, the system's folder for temporary files. CPU time is the whole process's, so that it
//! compares with parsing on one core however many threads wait for the disk.
#![expect(clippy::print_stdout, reason = "a measurement is for whoever runs it")]
#![expect(clippy::cast_precision_loss, reason = "rates are printed with few digits")]

use std::{fs, hint::black_box, path::PathBuf, sync::Arc, time::Instant};

use jiff::Timestamp;
use runtime_bridge::log::{Batch, Log, Offset, Options, Read};
use tests::parse;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).map(PathBuf::from);
    let place = place.unwrap_or_else(std::env::temp_dir).join(format!("mayfly-bench-{}", std::process::id()));
    let events: Arc<[String]> = (0..EVENTS).map(event).collect();
    let bytes = events.iter().map(String::len).sum::<usize>() / events.len();
    println!("{EVENTS} events of {bytes} bytes, log in {}", place.display());

    let parse = measure("parse only, borrowed", || {
        for event in &*events {
            parse(event)?;
        }
        Ok(())
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    for (senders, in_batch) in [(1, 1), (32, 1), (256, 1), (1, 100), (8, 100), (32, 1000)] {
        let _ = fs::remove_dir_all(&place);
        let (log, _) = Log::open(&place, Options::default())?;
        // One sender waits for the disk each time: a part of the events shows it.
        let count = if senders * in_batch < 32 { EVENTS / 20 } else { EVENTS };
        let name = format!("append, {senders} senders of {in_batch}");
        let appended = measure_of(count, &name, || runtime.block_on(append(&log, &events, count, senders, in_batch)))?;
        println!("{:>70.0} % of parsing", 100.0 * parse / appended);
    }
    let (log, _) = Log::open(&place, Options::default())?;
    let read = measure("read", || {
        let mut reader = log.reader(Offset(0));
        while let Some(read) = reader.read()? {
            assert!(matches!(black_box(read), Read::Records(_)));
        }
        Ok(())
    })?;
    println!("{:>70.0} % of parsing", 100.0 * parse / read);
    drop(log);
    fs::remove_dir_all(&place)?;
    Ok(())
}

/// Appends events, each sender its part, one batch after the other.
async fn append(log: &Log, events: &Arc<[String]>, count: usize, senders: usize, in_batch: usize) -> Outcome {
    let mut tasks = tokio::task::JoinSet::new();
    let share = count.div_ceil(senders);
    for sender in 0..senders {
        let (log, events) = (log.clone(), Arc::clone(events));
        tasks.spawn(async move {
            let part = sender * share..((sender + 1) * share).min(count);
            for batch in events.get(part).unwrap_or_default().chunks(in_batch) {
                let items: Vec<&[u8]> = batch.iter().map(String::as_bytes).collect();
                let received = Timestamp::now();
                let batch = Batch { sensor: "falco", dialect: "falco", received, is_over_limit: false, items: &items };
                log.append(&batch).await?;
            }
            Ok::<_, runtime_bridge::log::Error>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

fn measure(name: &str, work: impl FnOnce() -> Outcome) -> Result<f64, Box<dyn std::error::Error>> {
    measure_of(EVENTS, name, work)
}

/// Microseconds of CPU for an event.
fn measure_of(count: usize, name: &str, work: impl FnOnce() -> Outcome) -> Result<f64, Box<dyn std::error::Error>> {
    let (before, started) = (cpu_seconds()?, Instant::now());
    work()?;
    let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds()? - before);
    let micros = 1e6 * cpu / count as f64;
    println!("{name:<30} {:>9.0} events/s {micros:>8.2} us CPU/event", count as f64 / wall);
    Ok(micros)
}

/// CPU time of this process so far. Source: proc(5), `/proc/PID/stat`, fields 14 and 15, in ticks of 10 ms.
fn cpu_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let ticks = fields.split_ascii_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / 100.0)
}

/// An event as Falco sends it with the fields that are asked of it.
fn event(number: usize) -> String {
    let padding = "x".repeat(330);
    format!(
        r#"{{"hostname":"node-{}","output":"13:44:05.478445995: Notice A program was started {padding}","output_fields":{{"container.full_id":"{number:064x}","container.id":"{number:012x}","container.image.digest":"sha256:{number:064x}","container.image.repository":"docker.io/library/nginx","container.image.tag":"1.29","container.name":"web","evt.arg.flags":"EXE_WRITABLE|EXE_LOWER_LAYER","evt.rawres":0,"evt.res":"SUCCESS","evt.time":1685022245478445995,"evt.type":"execve","k8s.ns.name":"shop","k8s.pod.name":"web-7d9c-{number}","k8s.pod.uid":"0f7ad251-39da-44f7-af28-34a0e971be3e","proc.aname[2]":"containerd-shim","proc.cmdline":"sh -c nginx -t && nginx -s reload","proc.cwd":"/etc/nginx/","proc.exepath":"/usr/bin/dash","proc.is_exe_from_memfd":false,"proc.is_exe_upper_layer":false,"proc.name":"sh","proc.pcmdline":"nginx: master process nginx -g daemon off;","proc.pexepath":"/usr/sbin/nginx","proc.pid":{number},"proc.pname":"nginx","proc.ppid":1,"user.uid":101}},"priority":"Notice","rule":"Mayfly: program started","source":"syscall","tags":["container","mayfly"],"time":"2026-05-25T13:44:05.478445995Z"}}"#,
        number % 50
    )
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

const EVENTS: usize = 200_000;
