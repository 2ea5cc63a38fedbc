//! A folder full of files that crash, hang, lie and bomb: each gets its one import-error row, and harms nobody else.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::os::unix::fs::symlink;

use support::{World, dag, filtered, show};

/// Every file says `airflow` and `dag`, so that it is taken for a DAG file.
const FILES: [(&str, &str); 29] = [
    (
        "bomb_memory.py",
        "# airflow dag\nx = []\nwhile True: x.append(bytearray(64 << 20))",
    ),
    (
        "bomb_fork.py",
        "# airflow dag\nimport os\nwhile True:\n    os.fork()",
    ),
    ("crash_exit.py", "# airflow dag\nimport os\nos._exit(0)"),
    (
        "crash_kill_group.py",
        "# airflow dag\nimport os, signal\nos.killpg(0, signal.SIGTERM)",
    ),
    (
        "crash_kill_self.py",
        "# airflow dag\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    ),
    (
        "crash_segfault.py",
        "# airflow dag\nimport ctypes\nctypes.string_at(0)",
    ),
    ("crash_stack.py", "# airflow dag\ndef f(): f()\nf()"),
    ("end_keyboard.py", "# airflow dag\nraise KeyboardInterrupt"),
    ("end_sys_exit.py", "# airflow dag\nimport sys\nsys.exit(3)"),
    (
        "fd_close_all.py",
        "# airflow dag\nimport os\nos.closerange(0, 256)",
    ),
    (
        "fd_forge.py",
        "# airflow dag\nimport os, struct\nbody = b'{\"dags\": [{\"dag\": {\"dag_id\": \"good\"}}]}'\nos.write(3, struct.pack('!cI', b'R', len(body)) + body)\nos._exit(0)",
    ),
    (
        "fd_garbage.py",
        "# airflow dag\nimport os\nfor fd in range(256):\n    try: os.write(fd, b'\\xfe\\x00 garbage' * 500)\n    except OSError: pass",
    ),
    (
        "fd_half_frame.py",
        "# airflow dag\nimport os, struct\nos.write(3, struct.pack('!cI', b'R', 4000) + b'{')\nos._exit(0)",
    ),
    (
        "fd_huge_frame.py",
        "# airflow dag\nimport os, struct\nos.write(3, struct.pack('!cI', b'R', 2**32 - 1))\nimport time; time.sleep(60)",
    ),
    (
        "grandchild.py",
        "# airflow dag\nimport os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(600)\n    os._exit(0)\nraise RuntimeError('my grandchild holds all pipes')",
    ),
    (
        "hang_deaf.py",
        "# airflow dag\nimport time, signal\nfor number in range(1, 32):\n    try: signal.signal(number, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True:\n    try: time.sleep(600)\n    except BaseException: pass",
    ),
    ("hang_loop.py", "# airflow dag\nwhile True: pass"),
    (
        "ids_dots.py",
        "from airflow.sdk import DAG\na = DAG('a..b')\nb = DAG('..')\n",
    ),
    (
        "ids_newline.py",
        "from airflow.sdk import DAG\na = DAG('a\\n')\n",
    ),
    (
        "ids_task.py",
        "from airflow.sdk import DAG, task\nwith DAG('ids_task'):\n    task(lambda: 1, task_id='..')()\n",
    ),
    (
        "kill_parser.py",
        "# airflow dag\nimport os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
    ),
    (
        "kill_everybody.py",
        "# airflow dag\nimport os, signal\nos.kill(-1, signal.SIGKILL)\nraise RuntimeError('nobody else is here')",
    ),
    (
        "long_error.py",
        "# airflow dag\nraise ValueError('x' * 10_000_000)",
    ),
    (
        "long_output.py",
        "# airflow dag\nfor i in range(200_000): print('many lines')\nraise ValueError('after many lines')",
    ),
    ("nul.py", "# airflow dag\nx = '\0'"),
    (
        "raise_weird.py",
        "# airflow dag\nclass E(Exception):\n    def __str__(self): raise self\nraise E()",
    ),
    (
        "surrogate.py",
        "# airflow dag\nraise ValueError('\\ud800 \\0')",
    ),
    ("syntax.py", "# airflow dag\ndef f(:\n"),
    (
        "unsupported.py",
        "from airflow.sdk import DAG, BaseOperator\nclass B(BaseOperator):\n    def __init__(self, **k):\n        super().__init__(**k)\n        import missing_package_xyz\nwith DAG('unsupported'):\n    B(task_id='b')\n",
    ),
];

fn fill(world: &World) {
    for (name, content) in FILES {
        world.put(name, content);
    }
    world.put("utf8_not.py", b"# airflow dag\nx = '\xff'");
    world.put(
        "utf16.py",
        "# airflow dag"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<u8>>(),
    );
    world.put(
        "large.py",
        format!("# airflow dag\nx = '''{}'''", "x".repeat(1 << 20)),
    );
    world.put("empty.py", "");
    world.put("zipped.zip", "PK");
    world.put("new\nline.py", dag("newline"));
    world.put("directory.py/inside.py", dag("inside"));
    let outside = world.source("outside.py", dag("outside"));
    symlink(outside, world.folder().join("link_out.py")).unwrap();
    nix::unistd::mkfifo(
        &world.folder().join("pipe.py"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    world.put("good.py", dag("good"));
    world.put("zz_good.py", dag("zz_good"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_file_gets_one_import_error_and_harms_no_other() {
    let world = World::with(
        |settings| settings.parse_timeout = std::time::Duration::from_secs(3),
        std::sync::Arc::new(support::Rules),
    )
    .await;
    fill(&world);
    let report = world.sync().await;
    insta::assert_snapshot!(world.dag_rows().await, @"");
    let errors = filtered(&world.import_errors().await, world.root.path());
    insta::with_settings!({filters => vec![
        (r"0x[0-9a-f]+", "[address]"),
        (r"Current thread \[address\]", "Current thread"),
        (r"/[^ \x22]*/(lib|site-packages)/", "[python]/"),
        (r"line \d+ in (?P<name>string_at)", "line [n] in $name"),
        (r"\(\d+ bytes left out\)", "([n] bytes left out)"),
        (r"x{100,}", "[many x]"),
        (r"unusual_prefix_[0-9a-f]{40}", "[module]"),
    ]}, {
        insta::assert_snapshot!(errors, @"");
    });
    let failed: Vec<&str> = report.failures().map(|(path, _)| path).collect();
    let rows = world
        .rows("SELECT filename FROM import_error ORDER BY filename COLLATE \"C\"")
        .await;
    assert_eq!(failed.join("\n"), rows);
    assert!(
        report.missing_walls.is_empty(),
        "{:?}",
        report.missing_walls
    );

    // Nothing changed: nobody is parsed, not even those that hung (for a minute).
    let report = world.sync().await;
    assert!(
        !show(&report).contains(" failed:\n")
            && report.files.iter().all(|file| file.seconds == 0.0)
    );
    world.end().await;
}

/// No process of a DAG file outlives its parsing.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_file_starts_outlives_it() {
    let world = World::new().await;
    let mark = format!("modalflow-mark-{}", std::process::id());
    world.put("daemon.py", format!(
        "# airflow dag\nimport subprocess\nfor _ in range(3):\n    subprocess.Popen(['sh', '-c', 'setsid sh -c \"sleep 300; : {mark}\" & sleep 300; : {mark}'], start_new_session=True)\nimport time; time.sleep(0.3)\n"
    ));
    world.sync().await;
    let left: Vec<String> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.unwrap().path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&mark))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    world.end().await;
}
