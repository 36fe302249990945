"""Logging of the daemons: one line an event to standard error, a file or syslog, with secrets masked."""

from __future__ import annotations

import logging
import logging.handlers
from typing import TYPE_CHECKING

from compute.masking import masked

if TYPE_CHECKING:
    from oslo_config.cfg import ConfigOpts

FORMAT = "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s %(message)s"
SYSLOG = "/dev/log"


class Masked(logging.Formatter):
    """Formats a record and masks what looks like a password in it."""

    def format(self, record: logging.LogRecord) -> str:
        """The masked line."""
        return masked(super().format(record))


def set_up(conf: ConfigOpts) -> None:
    """Point the root logger where the flags logfile, use_syslog, verbose and default_log_levels say."""
    handlers: list[logging.Handler] = [logging.FileHandler(conf.logfile) if conf.logfile else logging.StreamHandler()]
    if conf.use_syslog:
        handlers.append(logging.handlers.SysLogHandler(address=SYSLOG))
    for handler in handlers:
        handler.setFormatter(Masked(FORMAT, "%Y-%m-%d %H:%M:%S"))
    logging.basicConfig(level=logging.DEBUG if conf.verbose else logging.INFO, handlers=handlers, force=True)
    for item in conf.default_log_levels:
        name, _, level = item.partition("=")
        logging.getLogger(name).setLevel(level)
