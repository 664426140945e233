-- Extends leases, gives them back, or takes them back from a process that ends. Harmless twice.
--
-- KEYS     what the leases name: queues, turns and lines (zset), fences (hash)
-- ARGV[1]  msgpack: {verb, stamp, channel, news, {fences, field, queue, id, member, fence, due, turns, line}...}
-- ARGV[#]  the nonce
-- Reply    the nonce, and msgpack: the places of those that are lost
--
-- A lease is held while its fence is the newest. One that is taken back gets a new fence: it is worth
-- nothing, whoever shows it. `member` has its turn in `turns`. Only jobs have a `line`.

local ask, nonce = cmsgpack.unpack(ARGV[1]), ARGV[#ARGV]
local verb, stamp, channel, news, leases = ask[1], ask[2], ask[3], ask[4], ask[5]
local time = redis.call('TIME')
if stamp < time[1] * 1000 + math.floor(time[2] / 1000) - 2000 then
  return redis.error_reply('LATE nobody waits for this any more')
end
local types = {}
for _, l in ipairs(leases) do
  types[KEYS[l[1]]], types[KEYS[l[3]]], types[KEYS[l[8]]] = 'hash', 'zset', 'zset'
  if l[9] then types[KEYS[l[9]]] = 'zset' end
end
for _, key in ipairs(KEYS) do
  local is = redis.call('TYPE', key).ok
  if is ~= 'none' and is ~= types[key] then return redis.error_reply('MISTYPED a key is a ' .. is) end
end

-- Moves a job that is there: up (GT), down (LT) or wherever (CH, which hinders nothing).
local function move(l, how)
  redis.call('ZADD', KEYS[l[3]], 'XX', how, l[7], l[4])
  if l[9] then redis.call('ZADD', KEYS[l[9]], 'XX', how, l[7], l[2]) end
end

local lost = {}
for i, l in ipairs(leases) do
  local fences, queue = KEYS[l[1]], KEYS[l[3]]
  if tonumber(redis.call('HGET', fences, l[2]) or 0) ~= l[6] then
    lost[#lost + 1] = i
  elseif verb == 'renew' then
    move(l, 'GT')
  else
    if verb == 'reclaim' then
      redis.call('HINCRBY', fences, l[2], 1)
      move(l, 'LT')
    else
      move(l, 'CH')
    end
    local at = redis.call('ZSCORE', queue, l[4])
    if at then redis.call('ZADD', KEYS[l[8]], 'LT', at, l[5]) end
  end
end
if news ~= '' then redis.call('PUBLISH', channel, news) end
return { nonce, cmsgpack.pack(lost) }
