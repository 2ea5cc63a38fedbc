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
    let world = World::new().await;
    fill(&world);
    let report = world.sync().await;
    insta::assert_snapshot!(world.dag_rows().await, @r#"
    good | good.py | active | fine
    zz_good | zz_good.py | active | fine
    "#);
    let errors = filtered(&world.import_errors().await, world.root.path());
    insta::with_settings!({filters => vec![
        // Python's own frames and marks differ from version to version.
        (r"(?m)^ *[~^]+\n", ""),
        (r#"(?m)^  File "(<frozen importlib|\[root\]/dags-room/).*\n"#, ""),
        (r"python3\.\d+/", ""),
        (r"0x[0-9a-f]+", "[address]"),
        (r"Current thread \[address\]", "Current thread"),
        (r"/[^ \x22]*/(lib|site-packages)/", "[python]/"),
        (r"line \d+ in (?P<name>string_at)", "line [n] in $name"),
        (r"\(\d+ bytes left out\)", "([n] bytes left out)"),
        (r"x{100,}", "[many x]"),
        (r"unusual_prefix_[0-9a-f]{40}", "[module]"),
    ]}, {
        insta::assert_snapshot!(errors, @r#"
        bomb_fork.py | Traceback (most recent call last):
          File "[root]/volume/dags/bomb_fork.py", line 4, in <module>
            os.fork()
        BlockingIOError: [Errno 11] Resource temporarily unavailable
        hint: a DAG file may start few processes and threads while it is parsed; start them inside tasks
        bomb_memory.py | Traceback (most recent call last):
          File "[root]/volume/dags/bomb_memory.py", line 3, in <module>
            while True: x.append(bytearray(64 << 20))
        MemoryError
        hint: a DAG file may take 1 GiB while it is parsed; load data inside tasks
        crash_exit.py | the file ended the process that parsed it, with exit code 0 and without a result
        hint: look for os._exit, or for a library that ends the process when it is imported
        crash_kill_group.py | the process that parsed the file was killed by SIGTERM
        hint: look for code at the top level of the file that sends signals
        crash_kill_self.py | the process that parsed the file was killed by SIGKILL
        hint: the system may have run out of memory, or the file's own code sent the signal
        crash_segfault.py | the process that parsed the file was killed by SIGSEGV
        hint: a compiled library crashed while it was imported or used; see where below, and try another version of it
        its last words on stderr:
        Fatal Python error: Segmentation fault
        Current thread (most recent call first):
          File "[python]/ctypes/__init__.py", line [n] in string_at
          File "[root]/volume/dags/crash_segfault.py", line 3 in <module>
        crash_stack.py | Traceback (most recent call last):
          File "[root]/volume/dags/crash_stack.py", line 2, in f
            def f(): f()
          File "[root]/volume/dags/crash_stack.py", line 2, in f
            def f(): f()
        RecursionError: maximum recursion depth exceeded
        hint: look for a function at the top level of the file that calls itself without end
        directory.py | it is a directory, not a file
        hint: rename or remove it, or list it in .airflowignore
        end_keyboard.py | the file broke the code that parses it:
        Traceback (most recent call last):
          File "[python]/airflow/dag_processing/importers/python_importer.py", line 162, in import_file
            modules = self._load_modules_from_file(filepath, safe_mode, result)
          File "[python]/airflow/dag_processing/importers/python_importer.py", line 269, in _load_modules_from_file
            return parse(mod_name, filepath)
          File "[python]/airflow/dag_processing/importers/python_importer.py", line 238, in parse
            loader.exec_module(new_module)
          File "[root]/volume/dags/end_keyboard.py", line 2, in <module>
            raise KeyboardInterrupt
        KeyboardInterrupt
        end_sys_exit.py | Traceback (most recent call last):
          File "[root]/volume/dags/end_sys_exit.py", line 3, in <module>
            sys.exit(3)
        SystemExit: 3
        hint: take sys.exit out of the top level of the file; code that runs only by hand belongs under `if __name__ == "__main__":`
        fd_close_all.py | the file ended the process that parsed it, with exit code 0 and without a result
        hint: look for os._exit, or for a library that ends the process when it is imported
        fd_forge.py | the DAG good: its format version is absent, this host reads version 3
        hint: parse the DAG file again with Airflow 3.3 (`dags update`)
        fd_garbage.py | the result of parsing the file cannot be read: it sent something else than a result
        hint: look for code at the top level of the file that writes to file descriptors it did not open
        fd_half_frame.py | the file ended the process that parsed it, with exit code 0 and without a result
        hint: look for os._exit, or for a library that ends the process when it is imported
        fd_huge_frame.py | the DAGs of the file are larger than 32 MiB when serialized
        hint: split it into several files, and pass large values by reference
        grandchild.py | Traceback (most recent call last):
          File "[root]/volume/dags/grandchild.py", line 7, in <module>
            raise RuntimeError('my grandchild holds all pipes')
        RuntimeError: my grandchild holds all pipes
        hang_deaf.py | the file took longer than 5 s to import and was stopped
        it was at (innermost call first):
          File "[root]/volume/dags/hang_deaf.py", line 7 in <module>
        hint: move slow work from the top level of the file into tasks, or raise scheduler.parse_timeout_seconds
        hang_loop.py | the file took longer than 5 s to import and was stopped
        it was at (innermost call first):
          File "[root]/volume/dags/hang_loop.py", line 2 in <module>
        hint: move slow work from the top level of the file into tasks, or raise scheduler.parse_timeout_seconds
        ids_dots.py | the dag_id ".." is made of dots that a path would take for a way up
        hint: use letters, digits, dashes, dots and underscores

        the dag_id "a..b" is made of dots that a path would take for a way up
        hint: use letters, digits, dashes, dots and underscores
        ids_newline.py | the dag_id "a\n" has characters that are not allowed
        hint: use letters, digits, dashes, dots and underscores
        ids_task.py | the task_id ".." is made of dots that a path would take for a way up
        hint: use letters, digits, dashes, dots and underscores
        kill_everybody.py | Traceback (most recent call last):
          File "[root]/volume/dags/kill_everybody.py", line 4, in <module>
            raise RuntimeError('nobody else is here')
        RuntimeError: nobody else is here
        kill_parser.py | Traceback (most recent call last):
          File "[root]/volume/dags/kill_parser.py", line 3, in <module>
            os.kill(os.getppid(), signal.SIGKILL)
        PermissionError: [Errno 1] Operation not permitted
        hint: while it is parsed, a DAG file reads Python and the DAG folder and writes nothing but temporary files; do it inside a task
        large.py | it has 1048600 bytes; a DAG file may have 1048576
        hint: keep data in files of their own, which the DAG reads
        link_out.py | it is a link that leads out of the DAG folder
        hint: put a copy in its place, or list it in .airflowignore
        long_error.py | Traceback (most recent call last):
          File "[root]/volume/dags/long_error.py", line 2, in <module>
            raise ValueError('x' * 10_000_000)
        ValueError: [many x]
        ... ([n] bytes left out) ...

        [many x]
        long_output.py | Traceback (most recent call last):
          File "[root]/volume/dags/long_output.py", line 3, in <module>
            raise ValueError('after many lines')
        ValueError: after many lines
        new\nline.py | its name has characters that cannot be shown
        hint: rename it, or list it in .airflowignore
        nul.py | Traceback (most recent call last):
        SyntaxError: source code string cannot contain null bytes
        hint: save the file as UTF-8 text
        pipe.py | it is a named pipe, not a file
        hint: rename or remove it, or list it in .airflowignore
        raise_weird.py | Traceback (most recent call last):
          File "[root]/volume/dags/raise_weird.py", line 4, in <module>
            raise E()
        [module]_raise_weird.E: <exception str() failed>
        surrogate.py | Traceback (most recent call last):
          File "[root]/volume/dags/surrogate.py", line 2, in <module>
            raise ValueError('\ud800 \0')
        ValueError: \ud800 \0
        syntax.py | Traceback (most recent call last):
          File "[root]/volume/dags/syntax.py", line 2
            def f(:
        SyntaxError: invalid syntax
        unsupported.py | Traceback (most recent call last):
          File "[python]/airflow/sdk/bases/operator.py", line 567, in apply_defaults
            result = func(self, **kwargs, default_args=default_args)
          File "[root]/volume/dags/unsupported.py", line 5, in __init__
            import missing_package_xyz
        ModuleNotFoundError: No module named 'missing_package_xyz'
        hint: put the module into the DAG folder, or install its package into the environment
        utf16.py | Traceback (most recent call last):
        SyntaxError: source code string cannot contain null bytes
        hint: save the file as UTF-8 text
        utf8_not.py | Traceback (most recent call last):
          File "[root]/volume/dags/utf8_not.py", line 2
            x = '�'
        SyntaxError: (unicode error) 'utf-8' codec can't decode byte [address] in position 0: invalid start byte
        hint: save the file as UTF-8, or declare its encoding in its first line
        zipped.zip | DAGs in zip files are not supported
        hint: unpack it into the DAG folder, or list it in .airflowignore
        "#);
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
