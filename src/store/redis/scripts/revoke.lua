-- KEYS[1]: the log. ARGV: the channel, the log's name in it, how many entries are kept and for how long, and the entries,
-- each a digest and its expiry.
local channel, name, length, life = unpack(ARGV, 2, 5)
for i = 6, #ARGV, 2 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', length, '*', 'd', ARGV[i], 'e', ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[1], life)
publish(channel, name)
return {'recorded'}
