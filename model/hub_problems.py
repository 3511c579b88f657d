"""What went wrong with the hub, in one clause: what it answered, or what in the environment leads astray."""

import multiprocessing
import os
import ssl
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import huggingface_hub as hf
from huggingface_hub import constants, errors


def problem(error: BaseException) -> str:
    """Say in one clause what went wrong with the hub, and what to do."""
    hub, seconds = constants.ENDPOINT, constants.HF_HUB_ETAG_TIMEOUT
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    advice = {401: "check your token, or `hf auth login`", 404: "check HF_ENDPOINT"}.get(status, "try again later")
    reason = str(error).partition("\n")[0] or type(error).__name__
    answered = isinstance(error, errors.OfflineModeIsEnabled | errors.HfHubHTTPError)
    if not answered and (fault := find_fault(reason)):
        return fault
    proxy = find_proxy(hub)
    way, check = (f" through {proxy}", "that proxy") if proxy else ("", "your network and HF_ENDPOINT")
    clauses: dict[type, str] = {  # the first that fits
        errors.OfflineModeIsEnabled: "HF_HUB_OFFLINE forbids asking the hub; unset it",
        errors.GatedRepoError: f"{hub} restricts it: ask for access on its page there, then `hf auth login`",
        errors.RepositoryNotFoundError: f"{hub} has none that you may see; check the name, or `hf auth login`",
        errors.RevisionNotFoundError: f"{hub} does not have this revision; check HF_ENDPOINT",
        errors.HfHubHTTPError: f"{hub} answered {status}{way}; {advice}",
        errors.HTTPError: f"the connection to {hub}{way} failed ({reason}); check {check}",
        multiprocessing.TimeoutError: f"{hub} gave no answer within {seconds} seconds{way}; check your network",
        OSError: f"{reason}; try again",
        object: f"{hub} does not answer as the hub does{way}; check your network, HF_ENDPOINT and HF_TOKEN",
    }
    return next(clause for kind, clause in clauses.items() if isinstance(error, kind))


def find_fault(reason: str) -> str | None:
    """Say what in the environment keeps the hub from being asked, and what to do; None where all can be used.

    reason: what the connection failed with."""
    return find_fault_of_certificates(reason) or find_fault_of_proxies() or find_fault_of_token()


def find_fault_of_certificates(reason: str) -> str | None:
    path, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if path:
        try:
            ssl.create_default_context(cafile=path)
        except OSError as error:  # ssl.SSLError too
            return f"SSL_CERT_FILE={path} holds no certificates ({error.strerror}); name a .pem file, or unset it"
    if "CERTIFICATE_VERIFY_FAILED" not in reason:
        return None
    if folder and not path and not os.path.isdir(folder):
        return f"SSL_CERT_DIR={folder} is no folder; unset it"
    known = f" by SSL_CERT_FILE={path}" if path else f" by SSL_CERT_DIR={folder}" if folder else ""
    wrong_time = "expired" in reason or "not yet valid" in reason
    advice = "is the clock of this machine right?" if wrong_time else "SSL_CERT_FILE must name a .pem file that has it"
    return f"the certificate of {constants.ENDPOINT} is not trusted{known} ({reason.rpartition(': ')[2]}); {advice}"


def find_fault_of_proxies() -> str | None:
    for scheme in ("https", "http", "all"):  # a client is made for each, though one is used
        names, value = read_proxy(scheme)
        if value and (fault := find_fault_of_proxy(value)):
            return f"{names}={hide_password(value)}: {fault}, or unset it"
    return None


def find_fault_of_token() -> str | None:
    try:
        token = hf.get_token() or ""
    except OSError as error:
        return f"{constants.HF_TOKEN_PATH} cannot be read ({error.strerror}); set HF_HOME to another folder"
    if token.isascii() and token.isprintable():
        return None
    return f"HF_TOKEN, or {constants.HF_TOKEN_PATH}, has characters that no token has; copy it again"


def read_proxy(scheme: str) -> tuple[str, str | None]:
    """Return the names of the variables that hold the proxy of a scheme, and its address: None where there is none."""
    proxies = getproxies()
    value = None if "*" in map(str.strip, proxies.get("no", "").split(",")) else proxies.get(scheme)
    names = [name for name in os.environ if name.lower() == f"{scheme}_proxy" and os.environ[name] == value]
    return " and ".join(names) or f"the system's {scheme} proxy", value


def find_proxy(address: str) -> str | None:
    """Return the proxy through which an address is asked, as NAME=VALUE; None where it is asked directly."""
    try:
        url = urlsplit(address)
    except ValueError:  # an address of [
        return None
    if proxy_bypass(url.hostname or ""):
        return None
    for scheme in (url.scheme, "all"):
        names, value = read_proxy(scheme)
        if value:
            return f"{names}={hide_password(value)}"
    return None


def find_fault_of_proxy(value: str) -> str | None:
    """Say why an address is none of a proxy that can be used, and what to do; None where it may be one."""
    expected = "expected http://host:port; correct it"
    try:
        url = urlsplit(value if "://" in value else f"http://{value}")
        has_host = bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:  # of its port, or of [
        return expected
    if url.scheme in ("socks5", "socks5h"):
        return None if find_spec("socksio") else "a SOCKS proxy needs another package; `.venv/bin/pip install socksio`"
    if url.scheme not in ("http", "https"):
        return "expected http://, https:// or socks5://; correct it"
    return None if has_host else expected


def hide_password(address: str) -> str:
    """Return an address without the password that may stand in it."""
    before, at, host = address.rpartition("@")
    scheme, slashes, user = before.rpartition("://")
    return f"{scheme}{slashes}{user.partition(':')[0]}:***@{host}" if ":" in user else f"{before}{at}{host}"
