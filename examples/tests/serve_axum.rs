//! Starts the service on a free port of the loopback, and asks it as clients do. Every wait has an
//! end: reads time out, and a server that does not stop in time is killed.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use seqrs::ndarray::{Array2, Array3, Axis, s};
use seqrs::{Batch, Gru, Layer, Linear, Sequential};

const PATIENCE: Duration = Duration::from_secs(120);
const WIDTH: usize = 8;

struct Server {
    process: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Reply {
    status: u16,
    body: Vec<u8>,
}

impl Reply {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The numbers of a request that succeeded, as bits.
    fn bits(&self) -> Vec<u32> {
        assert_eq!(self.status, 200, "{:?}", String::from_utf8_lossy(&self.body));
        let (numbers, rest) = self.body.as_chunks::<4>();
        assert!(rest.is_empty());
        numbers.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect()
    }
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_serve_axum"));
        let command = command.args(["--listen", "127.0.0.1:0"]).args(arguments);
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let (say, said) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = lines.read_line(&mut line);
            let _ = say.send(line);
        });
        let mut server = Self { process, address: ([127, 0, 0, 1], 0).into() };
        let line = said.recv_timeout(PATIENCE).unwrap();
        server.address = line.trim().strip_prefix("listening on http://").unwrap().parse().unwrap();
        server
    }

    /// Sends a request and reads nothing yet.
    fn send(&self, what: &str, headers: &str, body: &[u8]) -> TcpStream {
        let mut connection = TcpStream::connect(self.address).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head = format!(
            "{what} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        connection.write_all(&[head.as_bytes(), body].concat()).unwrap();
        connection
    }

    fn ask(&self, what: &str, headers: &str, body: &[u8]) -> Reply {
        read_reply(self.send(what, headers, body))
    }

    fn classify(&self, x: &Array2<f32>) -> Reply {
        self.ask("POST /classify", "", &bytes(x))
    }

    fn json(&self, what: &str, body: &str) -> Reply {
        self.ask(what, "content-type: application/json\r\n", body.as_bytes())
    }

    fn metric(&self, name: &str) -> u64 {
        let reply = self.ask("GET /metrics", "", b"");
        let prefix = format!("seqrs_{name} ");
        let line = reply.text().lines().find_map(|line| line.strip_prefix(&prefix)).unwrap();
        line.parse().unwrap()
    }

    /// Waits until a metric has a value.
    fn until(&self, name: &str, number: u64) {
        wait(name, || (self.metric(name) == number).then_some(()));
    }

    fn signal(&self, signal: &str) {
        let command = format!("kill -{signal} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    fn ended(&mut self) -> ExitStatus {
        wait("the end of the server", || self.process.try_wait().unwrap())
    }
}

fn wait<R>(what: &str, mut ready: impl FnMut() -> Option<R>) -> R {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = ready() {
            return result;
        }
        assert!(Instant::now() < end, "{what}: not in time");
        thread::sleep(Duration::from_millis(5));
    }
}

fn read_reply(mut connection: TcpStream) -> Reply {
    let mut all = Vec::new();
    connection.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
    let head = std::str::from_utf8(&all[..end]).unwrap();
    Reply { status: head[9..12].parse().unwrap(), body: all[end + 4..].to_vec() }
}

fn bytes(x: &Array2<f32>) -> Vec<u8> {
    x.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Rows that differ in each number, and with `seed`.
fn rows(steps: usize, seed: usize) -> Array2<f32> {
    let number = |t: usize, i: usize| ((seed * 7919 + t * WIDTH + i) as f32 * 0.37).sin();
    Array2::from_shape_fn((steps, WIDTH), |(t, i)| number(t, i))
}

fn model(units: usize, seed: u64) -> Sequential<f32> {
    let layers =
        vec![Gru::new(WIDTH, units).build().unwrap(), Linear::new(units, 3).build().unwrap()];
    Sequential::new(layers).unwrap().reseeded(seed).unwrap()
}

/// What the service draws when no file is given.
fn drawn() -> Sequential<f32> {
    model(64, 0)
}

fn with_last(model: &Sequential<f32>) -> Sequential<f32> {
    Sequential::new([model.layers(), &[Layer::Last]].concat()).unwrap()
}

/// The output of a direct call for one sequence, as bits.
fn direct(model: &Sequential<f32>, x: &Array2<f32>) -> Vec<u32> {
    let x: Array3<f32> = x.clone().insert_axis(Axis(0));
    let (y, _) = model.infer(Batch::from(&x)).unwrap();
    y.iter().map(|number| number.to_bits()).collect()
}

#[test]
fn answers_have_the_bits_of_direct_calls() {
    let (server, classifier) = (Server::start(&[]), with_last(&drawn()));
    thread::scope(|scope| {
        for client in 0..8 {
            let (server, classifier) = (&server, &classifier);
            scope.spawn(move || {
                for k in 0..10 {
                    let x = rows(1 + (client * 31 + k * 17) % 60, client * 100 + k);
                    let expected = direct(classifier, &x);
                    assert_eq!(server.classify(&x).bits(), expected);
                    let lists: Vec<_> = x.outer_iter().map(|row| row.to_vec()).collect();
                    let text = serde_json::to_string(&lists).unwrap();
                    let reply = server.json("POST /classify", &text);
                    assert_eq!(reply.status, 200);
                    let y: Vec<f32> = serde_json::from_slice(&reply.body).unwrap();
                    assert_eq!(y.iter().map(|y| y.to_bits()).collect::<Vec<_>>(), expected);
                }
            });
        }
    });
    assert_eq!(server.metric("requests_done_total"), 160);
    assert_eq!(server.metric("latency_seconds_bucket{le=\"+Inf\"}"), 160);
    let health = server.ask("GET /health", "", b"");
    assert_eq!(
        (health.status, health.text()),
        (200, &*format!("ok, model {}\n", drawn().fingerprint()))
    );
}

#[test]
fn streams_have_the_bits_of_their_sequences() {
    let (server, tagger) = (Server::start(&[]), drawn());
    let (clients, steps) = (8, 20);
    thread::scope(|scope| {
        for client in 0..clients {
            let (server, tagger) = (&server, &tagger);
            scope.spawn(move || {
                let opened = server.ask("POST /stream", "", b"");
                let path = format!("/stream/{}", opened.text());
                let (x, step) = (rows(steps, client), format!("POST {path}"));
                let row = |t: usize| bytes(&x.slice(s![t..=t, ..]).to_owned());
                let stepped = (0..steps).flat_map(|t| server.ask(&step, "", &row(t)).bits());
                assert_eq!(stepped.collect::<Vec<_>>(), direct(tagger, &x));

                // What is refused changes nothing.
                let refused = server.ask(&step, "", &bytes(&rows(2, 0)));
                assert_eq!(refused.status, 422);
                assert_eq!(refused.text(), "x: expected shape (1, 8), got (2, 8)");
                let longer = rows(steps + 1, client);
                let last = longer.slice(s![steps.., ..]).to_owned();
                let y = server.ask(&step, "", &bytes(&last)).bits();
                assert_eq!(y, direct(&with_last(tagger), &longer));

                assert_eq!(server.ask(&format!("DELETE {path}"), "", b"").status, 204);
                let gone = server.ask(&step, "", &row(0));
                assert_eq!(gone.status, 404);
                let words = format!("stream: expected one that is open, got {}", opened.text());
                assert_eq!(gone.text(), words);
            });
        }
    });
    assert_eq!(server.metric("stream_steps_total"), (clients * (steps + 1)) as u64);
    assert_eq!(server.metric("streams_open"), 0);

    // Asked for twice at once, a stream makes one step after the other.
    let path = server.ask("POST /stream", "", b"").text().to_owned();
    let (step, x) = (format!("POST /stream/{path}"), rows(1, 3));
    let twenty: Vec<_> = (0..20).map(|_| server.send(&step, "", &bytes(&x))).collect();
    let mut got: Vec<_> = twenty.into_iter().map(|sent| read_reply(sent).bits()).collect();
    let all = direct(
        &tagger,
        &x.broadcast((20, 1, WIDTH)).unwrap().to_shape((20, WIDTH)).unwrap().to_owned(),
    );
    let mut expected: Vec<_> = all.chunks(3).map(<[u32]>::to_vec).collect();
    got.sort_unstable();
    expected.sort_unstable();
    assert_eq!(got, expected);
}

#[test]
fn what_does_not_fit_is_refused_with_its_reason() {
    let server = Server::start(&[]);
    let classifier = with_last(&drawn());
    let wide = Array3::<f32>::zeros((1, 1, 2));
    let error = classifier.infer(Batch::from(&wide)).unwrap_err().to_string();
    for (body, words) in [
        ("[[1, 2]]", &*error),
        ("[[1, 2], [3]]", "x: expected rows of one length, got several lengths"),
        ("[[1, \"two\"]]", "invalid type: string \"two\", expected f32 at line 1 column 10"),
        ("[[1, 2", "EOF while parsing a list at line 1 column 6"),
    ] {
        let reply = server.json("POST /classify", body);
        assert_eq!((reply.status, reply.text()), (422, words));
    }
    let reply = server.ask("POST /classify", "", &[0; 33]);
    assert_eq!((reply.status, reply.text()), (422, "x: expected rows of 32 bytes, got 33 bytes"));
    let reply = server.ask("POST /classify", "x-timeout-ms: soon\r\n", &bytes(&rows(1, 0)));
    let words = "x-timeout-ms: expected a number of milliseconds, got \"soon\"";
    assert_eq!((reply.status, reply.text()), (422, words));
    assert_eq!(server.ask("POST /stream/7", "", b"").status, 404);
    // More than axum takes, by one byte.
    let large = server.ask("POST /classify", "", &vec![0; (2 << 20) + 1]);
    assert_eq!(large.status, 413);
    assert_eq!(server.classify(&rows(5, 1)).bits(), direct(&classifier, &rows(5, 1)));
}

#[test]
fn a_busy_server_refuses_gives_up_and_drains() {
    // A model from a file, and a sequence that keeps it busy for some three seconds.
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join(format!("serve-axum-{}.safetensors", std::process::id()));
    model(512, 9).save(&file).unwrap();
    let mut server = Server::start(&["--max-queue", "1", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    let classifier = with_last(&model(512, 9));
    direct(&classifier, &rows(500, 0));
    let began = Instant::now();
    direct(&classifier, &rows(500, 0));
    let steps = 500.0 * 3.0 / began.elapsed().as_secs_f64();
    // Not longer than a request may be.
    let long = rows((steps as usize).min(60_000), 0);

    let patient = "x-timeout-ms: 100000\r\n";
    let running = server.send("POST /classify", patient, &bytes(&long));
    server.until("requests_running", 1);

    let short = rows(3, 1);
    let late = server.ask("POST /classify", "x-timeout-ms: 50\r\n", &bytes(&short));
    assert_eq!(late.status, 504);
    assert_eq!(late.text(), "request: expected an answer in time, got none");

    let impatient = server.send("POST /classify", patient, &bytes(&short));
    server.until("requests_waiting", 1);
    drop(impatient);
    server.until("requests_waiting", 0);
    assert_eq!(server.metric("requests_cancelled_total"), 2);

    let waiting = server.send("POST /classify", patient, &bytes(&short));
    server.until("requests_waiting", 1);
    let full = server.classify(&short);
    assert_eq!(full.status, 503);
    assert_eq!(full.text(), "queue: expected fewer than 1 requests that wait, got 1");
    assert_eq!(server.metric("requests_done_total"), 0, "the long one is under way");

    server.signal("TERM");
    assert_eq!(read_reply(running).bits(), direct(&classifier, &long));
    assert_eq!(read_reply(waiting).bits(), direct(&classifier, &short));
    assert!(server.ended().success());
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn a_request_that_never_comes_whole_does_not_hold_the_end_up() {
    let mut server = Server::start(&["--drain", "0.2"]);
    let mut half = TcpStream::connect(server.address).unwrap();
    half.write_all(b"POST /classify HTTP/1.1\r\nhost: test\r\ncontent-length: 32\r\n\r\n1")
        .unwrap();
    // Answered after the connection before it was taken.
    assert_eq!(server.ask("GET /health", "", b"").status, 200);
    server.signal("TERM");
    assert_eq!(server.ended().code(), Some(1));
}

#[test]
fn idle_streams_end_and_so_does_the_server_by_ctrl_c() {
    let mut server = Server::start(&["--idle", "0.2"]);
    let id = server.ask("POST /stream", "", b"").text().to_owned();
    server.until("streams_evicted_total", 1);
    let step = format!("POST /stream/{id}");
    wait("an unknown stream", || (server.ask(&step, "", &[0; 32]).status == 404).then_some(()));
    server.signal("INT");
    assert!(server.ended().success());
}
