"""What the commands do, a file each; what they are called and take is `gateway/__main__.py`.

Only a command that needs a room enters it: `safelight token` starts no server's imports. Text on stdout
is what was asked for and plain when piped; progress and complaints are on stderr.
"""
