# What can be sent: files, streams, data sets, pixels that are made while they are sent. Each becomes a `Source`: an
# identity, the transfer syntaxes in which it can go out unharmed, and its bytes, read into the caller's buffer.
