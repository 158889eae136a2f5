-- enter: a worker has a connection of a client process. KEYS: process, exp. ARGV: process, session, worker, timeout ms
local no = refused(KEYS[1], ARGV[2])
if no then return no end
connect(KEYS[1], KEYS[2], ARGV[1], ARGV[3], ARGV[4])
return { 'ok' }
